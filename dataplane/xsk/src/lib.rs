//! AF_XDP for Tandem: UMEM in a memfd, ring cursors, sockets, and the interface trait.

//! The program in the kernel: test runs of crafted frames, and traffic over veth pairs in network namespaces of their
//! own. Everything here needs root (CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN), and fails without.

mod decisions;
mod frames;
mod hostile;
mod lab;
mod libbpf;
mod live;
mod maps;
mod model;
mod pin;
mod setup;

/* Map keys and values that the loader writes (Rust mirror: src/layout.rs). */
#ifndef TANDEM_STEER_STRUCTS_H
#define TANDEM_STEER_STRUCTS_H

#include <linux/types.h>

/* The one value of the map "settings". */
struct steer_settings {
	__u8 side;            /* STEER_SIDE_... */
	__u8 has_virtual_mac; /* 1: virtual_mac is meant */
	__u8 reserved[2];     /* 0 */
	__u8 own_mac[6];      /* of the interface */
	__u8 virtual_mac[6];
};

/* Key of the map "protected". */
struct steer_prefix {
	__u32 length;   /* 0 to 32, host byte order */
	__be32 address; /* network byte order, host bits 0 */
};

#endif

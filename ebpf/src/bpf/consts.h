/* Numbers that the program and its loader share (Rust mirror: src/layout.rs). */
#ifndef TANDEM_STEER_CONSTS_H
#define TANDEM_STEER_CONSTS_H

/* Receive queues of one interface. */
#define STEER_MAX_QUEUES 256
/* Protected prefixes. The map holds twice as many as the loader accepts, so that a new set can be
 * added whole before the old one goes. */
#define STEER_MAX_PROTECTED 131072
/* Own and virtual addresses, likewise. */
#define STEER_MAX_ADDRESSES 18432

/* Value in the map "addresses" */
#define STEER_ADDRESS_OWN 1
#define STEER_ADDRESS_VIRTUAL 2

/* steer_settings.side */
#define STEER_SIDE_UNSET 0
#define STEER_SIDE_INSIDE 1
#define STEER_SIDE_OUTSIDE 2

/* UDP ports of IKE (RFC 7296 section 2.23) and of ESP in UDP (RFC 3948). */
#define STEER_PORT_IKE 500
#define STEER_PORT_UDP_ENCAP 4500

#endif

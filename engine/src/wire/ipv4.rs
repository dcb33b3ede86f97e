//! IPv4 headers (RFC 791).

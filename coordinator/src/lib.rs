//! The member of sdm: services, proposals, reads, worker gateway and garbage collector.

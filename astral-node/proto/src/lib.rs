//! What nodes say to each other and decide, apart from all I/O.

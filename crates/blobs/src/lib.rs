//! Content-addressed block store: CIDs, UnixFS, CAR, pins.

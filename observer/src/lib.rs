//! Ring of flows, filters and the Observer service.

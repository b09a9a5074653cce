//! What needs more than one package or more than a user: the lab, agreement and verifier tests.

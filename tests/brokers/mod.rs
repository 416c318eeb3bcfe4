//! Real servers for tests: each in a folder of its own, on loopback, ended with the test.

pub mod redis;

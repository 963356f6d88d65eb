//! The router between real clients and scripted workers, all over loopback. Nothing sleeps: tests wait on what the
//! workers, the health service and the streams say.

// Helpers of tests are tests: what they expect they unwrap.
#![allow(clippy::expect_used, clippy::panic, clippy::large_enum_variant)]

mod access;
mod boundary;
mod cascade;
mod egress;
mod ensemble;
mod grpc;
mod guarded;
mod harness;
mod hostile;
mod http;
mod labels;
mod leak;
mod lifecycle;
mod limits;
mod retrieval;
mod routing;
mod shadow;
mod similarity;
mod worker;

//! The router between real clients and scripted workers, all over loopback. Nothing sleeps: tests wait on what the
//! workers, the health service and the streams say.

mod grpc;
mod harness;
mod http;
mod lifecycle;
mod routing;
mod worker;

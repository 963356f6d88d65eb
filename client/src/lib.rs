//! The commands of `slm` that ask a running swarm.
//!
//! - [`connection`]: the gRPC client, and the arguments that say which swarm; [`swarm`]: one that is started for a command;
//! - [`run`], [`chat`], [`embed`] and [`tokens`]: what models are asked for; `tools` reads the tools that a model may call;
//! - [`index`]: a folder of texts into the store of a route;
//! - [`get`], [`explain`] and [`ping`]: what the swarm says of itself;
//! - [`route`]: the head of a route, and how well a route decides.
//!
//! Each command is a module with its arguments and an `execute`.

pub mod chat;
pub mod connection;
pub mod embed;
pub mod explain;
pub mod get;
pub mod index;
pub mod ping;
pub mod route;
pub mod run;
pub mod swarm;
pub mod tokens;

mod tools;

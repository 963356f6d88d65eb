//! Personal data and secrets of texts that leave for a model of others: replaced by placeholders before, put back into the
//! answer after.
//!
//! A [`Redactor`] finds them, a [`Vault`] is one request's memory of what was replaced by what, and a [`Restorer`] puts values
//! back into an answer that arrives in pieces. Models copy placeholders such as `[EMAIL_1]` well, and the same value has the same
//! placeholder in every message of a request, so an answer can still say which of two addresses it means.
//!
//! ```
//! use std::sync::Arc;
//! use slm_redact::{Redactor, Restorer};
//!
//! let redactor = Redactor::new()?; // Once in a process.
//! let message = "Write to ada@example.com, please.";
//! let mut vault = redactor.vault([message]);
//! assert_eq!(vault.redact(message), "Write to [EMAIL_1], please.");
//!
//! let mut restorer = Restorer::text(Arc::new(vault));
//! let answer = [restorer.push("Sent to [EMA"), restorer.push("IL_1]."), restorer.finish()].concat();
//! assert_eq!(answer, "Sent to ada@example.com.");
//! # Ok::<(), slm_redact::PatternError>(())
//! ```
//!
//! # What it is not
//! - Names of people, places and companies, postal addresses and dates of birth are not found: no pattern tells them from other
//!   words, a model is needed for them. Neither are numbers of identity cards, taxes and insurances.
//! - Of [`Kind`]s that are found, some escape: the tests have figures for a corpus in six languages. It lowers the risk; it proves nothing.
//! - Addresses that name no machine of anybody (`127.0.0.1`, `0.0.0.0`, `::1`, netmasks) stay.
//! - Numbers of a JSON text stay, for a placeholder would be another type.
//!
//! Modules, in the order in which data meets them:
//!
//! - `kind`: what is looked for; `pattern`: how patterns are compiled;
//! - `find`: where it is in a text, a module a kind, and which of two wins where they overlap. Time is linear in the text;
//! - `placeholder`: what stands for it, and how that is read again;
//! - `vault`: the values of a request; `json`: the strings of a JSON text;
//! - `stream`: answers in pieces.

mod find;
mod json;
mod kind;
mod pattern;
mod placeholder;
mod stream;
mod vault;

pub use find::{Finding, Redactor};
pub use kind::Kind;
pub use pattern::PatternError;
pub use placeholder::Placeholder;
pub use stream::Restorer;
pub use vault::Vault;

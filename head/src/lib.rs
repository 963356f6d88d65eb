//! Heads of routes. A head reads the vector that an encoder makes of a text and says which label the text has, which expert that
//! label belongs to, and how typical the text is of those that the head was trained on.
//!
//! A head is linear, so it costs as much as a few hundred comparisons of vectors, and it is trained in seconds. Its files stand in
//! the folder of a LoraAdapter on the encoder: `head.json`, `head.safetensors`, and beside them the adapter's own files if it
//! changes the encoder, too. Modules, in the order in which data meets them:
//!
//! - `data`: labelled texts of JSON lines or CSV;
//! - `fit`: from their vectors to a head, by `logistic` (labels) and `spread` (distance to their means);
//! - `head`: what a head says of a vector; `files`: how it is kept;
//! - `report`: how often a route is right, and `plot` as a picture.

mod data;
mod files;
mod fit;
mod head;
mod logistic;
mod plot;
mod report;
mod spread;

pub use data::{Data, DataError, LabelledText};
pub use files::HeadError;
pub use fit::{FitError, Fitted, TrainingSet, fit};
pub use head::{Classified, Encoder, Head, Label, Training};
pub use plot::PlotError;
pub use report::{Answer, Confusion, Report};

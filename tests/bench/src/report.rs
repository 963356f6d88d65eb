//! What is told of the comparison with llama-server: tables, every figure, a picture.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{bandwidth, compare::Comparisons, plot};

/// Prints and draws the comparison with llama-server.
pub(crate) fn report(all: &Comparisons, raw: &mut Value, plot: &Path) -> Result<()> {
    println!("{}", all.table().markdown());
    raw["llama"] = all.json();
    if let Some((bandwidths, sides)) = all.memory() {
        println!("{}", bandwidth::markdown(bandwidths, &sides));
        raw["memory"] = bandwidth::json(bandwidths, &sides);
    }
    plot::draw(plot, all).with_context(|| plot.display().to_string())?;
    println!("Plot: {}", plot.display());
    Ok(())
}

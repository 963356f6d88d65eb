//! The reporter of `slm up` on standard error: progress bars on a terminal, lines elsewhere.

use std::{
    collections::HashMap,
    io::IsTerminal as _,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use slm_launch::WorkerLine;
use slm_local::{Reporter, reconcile::WorkerId};

use crate::style::{self, styled};

/// Prints progress and problems.
#[derive(Debug)]
pub struct Terminal {
    bars: Option<MultiProgress>,
    quiet: bool,
    workers: Mutex<HashMap<WorkerId, WorkerProgress>>,
}

/// Progress of a worker, as printed.
#[derive(Debug, Default)]
struct WorkerProgress {
    bar: Option<ProgressBar>,
    quarters: usize,
}

impl Reporter for Terminal {
    fn note(&self, text: &str) {
        if !self.quiet {
            self.print(text);
        }
    }

    fn problem(&self, text: &str) {
        self.print(&format!("{} {text}", styled(style::BAD, "problem:")));
    }

    fn log(&self, who: &str, line: &str) {
        self.print(&format!("{} {line}", styled(style::DIM, &format!("[{who}]"))));
    }

    fn opening(&self, id: WorkerId, model: &str, line: &WorkerLine) {
        match line {
            WorkerLine::Converting { done, total } => self.converting(id, model, *done, *total),
            // Artifacts are on this machine before a worker is started.
            WorkerLine::Fetching { .. } => {}
            WorkerLine::Loading => self.loading(id, model),
            WorkerLine::Ready { .. } | WorkerLine::Failed { .. } => self.finished(id),
        }
    }

    fn finished(&self, id: WorkerId) {
        if let Some(bar) = self.told().remove(&id).and_then(|told| told.bar) {
            bar.finish_and_clear();
        }
    }
}

impl Terminal {
    /// A quiet one prints problems only, and bars on a terminal.
    pub fn new(quiet: bool) -> Self {
        let bars = std::io::stderr().is_terminal().then(MultiProgress::new);
        Self { bars, quiet, workers: Mutex::default() }
    }

    fn converting(&self, id: WorkerId, model: &str, done: usize, total: usize) {
        let mut told = self.told();
        let told = told.entry(id).or_default();
        if let Some(bars) = &self.bars {
            let bar = told.bar.get_or_insert_with(|| bars.add(layers(model, total)));
            bar.set_length(total as u64);
            bar.set_position(done as u64);
            return;
        }
        // A line for each quarter, and one at the start.
        let quarter = (4 * done).checked_div(total).unwrap_or(4);
        if told.quarters < quarter + 1 {
            told.quarters = quarter + 1;
            self.note(&format!("SlmModel {model}: converting, {done} of {total} layers"));
        }
    }

    fn loading(&self, id: WorkerId, model: &str) {
        let mut told = self.told();
        let told = told.entry(id).or_default();
        let Some(bars) = &self.bars else { return self.note(&format!("SlmModel {model}: loading")) };
        if let Some(bar) = told.bar.take() {
            bar.finish_and_clear();
        }
        let spinner = bars.add(ProgressBar::new_spinner().with_message(format!("loading {model}")));
        spinner.enable_steady_tick(Duration::from_millis(100));
        told.bar = Some(spinner);
    }

    fn print(&self, text: &str) {
        match &self.bars {
            // Bars are drawn anew below the line.
            Some(bars) => bars.suspend(|| anstream::eprintln!("{text}")),
            None => anstream::eprintln!("{text}"),
        }
    }

    fn told(&self) -> MutexGuard<'_, HashMap<WorkerId, WorkerProgress>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A bar over the layers of a model.
pub fn layers(model: &str, total: usize) -> ProgressBar {
    // The template is ours and well formed; a bar without it would still do.
    let style = ProgressStyle::with_template("{msg} {wide_bar:.green/dim} {pos}/{len} layers, {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total as u64).with_style(style).with_message(format!("converting {model}"))
}

//! The calibration of a route, as a picture: how often it is right at each probability.

use std::{fs::File, io, path::Path};

use plotters::{prelude::*, style::register_font};
use thiserror::Error;

use crate::report::{BINS, Report};

const SIZE: u32 = 640;
const FONT: &str = "sans-serif";
const RIGHT: RGBColor = RGBColor(0, 90, 181);

/// A picture that was not made.
#[derive(Debug, Error)]
pub enum PlotError {
    /// No probabilities.
    #[error("the route has no probabilities to plot; a classifier gives them")]
    Empty,
    /// The file system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The library refused.
    #[error("drawing failed: {0}")]
    Draw(String),
}

impl Report {
    /// Draws the calibration to the PNG `file`: for each bin of probabilities the share of right answers, beside the diagonal where
    /// both are equal. Each bar says how many texts it stands for.
    ///
    /// # Errors
    /// No answer has a probability, or the file cannot be written.
    pub fn plot(&self, file: &Path) -> Result<(), PlotError> {
        if self.calibration.iter().all(|bin| bin.texts == 0) {
            return Err(PlotError::Empty);
        }
        let mut pixels = vec![0; (SIZE * SIZE * 3) as usize];
        self.draw(&mut pixels).map_err(|error| PlotError::Draw(error.to_string()))?;
        let mut encoder = png::Encoder::new(File::create(file)?, SIZE, SIZE);
        encoder.set_color(png::ColorType::Rgb);
        let written = encoder.write_header().and_then(|mut image| image.write_image_data(&pixels));
        written.map_err(|error| PlotError::Io(io::Error::other(error)))
    }

    fn draw(&self, pixels: &mut [u8]) -> Result<(), Box<dyn std::error::Error + '_>> {
        register_font(FONT, FontStyle::Normal, dejavu::sans::regular()).map_err(|_| "the font is none")?;
        let area = BitMapBackend::with_buffer(pixels, (SIZE, SIZE)).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption("Calibration", (FONT, 22))
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..1.0, 0.0..1.05)?;
        chart
            .configure_mesh()
            .x_desc("probability of the chosen expert")
            .y_desc("share of right answers")
            .label_style((FONT, 15))
            .axis_desc_style((FONT, 16))
            .draw()?;
        let bins = || self.calibration.iter().enumerate().filter(|(_, bin)| bin.texts > 0);
        chart.draw_series(bins().map(|(place, bin)| {
            let (begin, end) = (place as f64 / BINS as f64, (place + 1) as f64 / BINS as f64);
            let height = bin.right as f64 / bin.texts as f64;
            Rectangle::new([(begin + 0.008, 0.0), (end - 0.008, height)], RIGHT.mix(0.55).filled())
        }))?;
        chart.draw_series(bins().map(|(place, bin)| {
            let height = bin.right as f64 / bin.texts as f64;
            Text::new(bin.texts.to_string(), (place as f64 / BINS as f64 + 0.012, height + 0.03), (FONT, 14))
        }))?;
        chart.draw_series(LineSeries::new([(0.0, 0.0), (1.0, 1.0)], BLACK))?;
        area.present()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Answer;

    #[test]
    fn a_picture_is_a_png() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("calibration.png");
        assert!(matches!(Report::default().plot(&file), Err(PlotError::Empty)));
        let expert = Some("banking".to_owned());
        let answer = Answer {
            expected: expert.clone(),
            given: expert,
            confidence: Some(0.9),
            scored: true,
            reason: String::new(),
        };
        Report::of(&[answer]).plot(&file).expect("drawn");
        assert!(std::fs::read(&file).expect("a file").starts_with(b"\x89PNG"));
    }
}

//! Throughput and the time between tokens over streams, as a picture.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::{coord::Shift, element::DashedPathElement, prelude::*, style::register_font};

use crate::{
    Mix,
    compare::{Comparisons, Measured, Sample},
    table::quantile,
};

const WIDTH: u32 = 1500;
const HEIGHT: u32 = 640;
const FONT: &str = "sans-serif";
/// Two colours that the colour-blind tell apart, too.
const OURS: RGBColor = RGBColor(0, 90, 181);
const THEIRS: RGBColor = RGBColor(220, 90, 20);

/// A line of a panel.
struct Curve {
    name: &'static str,
    colour: RGBColor,
    dashed: bool,
    /// Streams and the figure.
    points: Vec<(f64, f64)>,
}

/// One of the two halves of the picture.
struct Panel {
    caption: &'static str,
    unit: &'static str,
    scale: Scale,
    curves: [Curve; 4],
}

/// How figures become heights.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scale {
    /// From zero.
    Linear,
    /// Each line is twice the one below.
    Doubling,
}

type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

/// Draws both panels to the PNG `file`.
pub(crate) fn draw(file: &Path, all: &Comparisons) -> Result<()> {
    register_font(FONT, FontStyle::Normal, dejavu::sans::regular()).map_err(|_| anyhow!("the font is none"))?;
    let mut pixels = vec![0; (WIDTH * HEIGHT * 3) as usize];
    {
        let area = BitMapBackend::with_buffer(&mut pixels, (WIDTH, HEIGHT)).into_drawing_area();
        area.fill(&WHITE)?;
        let (left, right) = area.split_horizontally(WIDTH / 2);
        throughput(all).draw(&left)?;
        latency(all).draw(&right)?;
        area.present()?;
    }
    let mut encoder = png::Encoder::new(std::fs::File::create(file)?, WIDTH, HEIGHT);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header()?.write_image_data(&pixels)?;
    Ok(())
}

fn throughput(all: &Comparisons) -> Panel {
    let adapted = |measured: &Measured| measured.case.mix == Mix::Distinct || measured.case.id == "llama/same-1";
    let rate = |samples: &[Sample]| median(samples, |sample| sample.rate);
    let curves = [
        Curve::new("slm up, base", OURS, false, all, is_base, |m| rate(&m.ours)),
        Curve::new("slm up, an adapter a stream", OURS, true, all, adapted, |m| rate(&m.ours)),
        Curve::new("llama-server, base", THEIRS, false, all, is_base, |m| rate(&m.theirs)),
        Curve::new("llama-server, an adapter a stream", THEIRS, true, all, adapted, |m| rate(&m.theirs)),
    ];
    Panel { caption: "Throughput", unit: "tokens a second", scale: Scale::Linear, curves }
}

fn latency(all: &Comparisons) -> Panel {
    let p50 = |samples: &[Sample]| median(samples, |sample| sample.gap_p50 * 1e3);
    let p99 = |samples: &[Sample]| median(samples, |sample| sample.gap_p99 * 1e3);
    let curves = [
        Curve::new("slm up, p50", OURS, false, all, is_base, |m| p50(&m.ours)),
        Curve::new("slm up, p99", OURS, true, all, is_base, |m| p99(&m.ours)),
        Curve::new("llama-server, p50", THEIRS, false, all, is_base, |m| p50(&m.theirs)),
        Curve::new("llama-server, p99", THEIRS, true, all, is_base, |m| p99(&m.theirs)),
    ];
    // The longest have the prompts of other streams in them: far above the rest.
    Panel { caption: "Inter-token latency, base", unit: "milliseconds", scale: Scale::Doubling, curves }
}

fn is_base(measured: &Measured) -> bool {
    measured.case.mix == Mix::Base && !measured.case.is_prompt()
}

fn median(samples: &[Sample], figure: impl Fn(&Sample) -> f64) -> f64 {
    quantile(&samples.iter().map(figure).collect::<Vec<_>>(), 0.5)
}

impl Curve {
    fn new(
        name: &'static str,
        colour: RGBColor,
        dashed: bool,
        all: &Comparisons,
        which: impl Fn(&Measured) -> bool,
        figure: impl Fn(&Measured) -> f64,
    ) -> Self {
        let point = |measured: &Measured| (measured.case.streams as f64, figure(measured));
        let points = all.measured.iter().filter(|measured| which(measured)).map(point);
        let points = points.filter(|point| point.1.is_finite()).collect();
        Self { name, colour, dashed, points }
    }
}

impl Panel {
    fn draw(&self, area: &Area<'_>) -> Result<()> {
        let scale = self.scale;
        let figures = self.curves.iter().flat_map(|curve| &curve.points).map(|point| scale.height(point.1));
        let (low, high) = figures.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), y| (low.min(y), high.max(y)));
        // None of its rows was measured.
        if low > high {
            return Ok(());
        }
        let heights = match scale {
            Scale::Linear => 0.0..high * 1.15,
            Scale::Doubling => low.floor()..high.ceil() + 1.0,
        };
        // Streams double from one mark to the next.
        let mut chart = ChartBuilder::on(area)
            .caption(self.caption, (FONT, 24))
            .margin(16)
            .x_label_area_size(54)
            .y_label_area_size(76)
            .build_cartesian_2d(-0.1..5.1, heights)?;
        let mut mesh = chart.configure_mesh();
        mesh.x_desc("streams").y_desc(self.unit).label_style((FONT, 16)).light_line_style(TRANSPARENT).x_labels(6);
        mesh.x_label_formatter(&|x: &f64| format!("{:.0}", x.exp2())).y_label_formatter(&|y| scale.label(*y)).draw()?;
        for curve in &self.curves {
            let points: Vec<_> = curve.points.iter().map(|&(x, y)| (x.log2(), scale.height(y))).collect();
            let style = curve.colour.stroke_width(2);
            let dots = points.iter().map(|&at| Circle::new(at, 4, curve.colour.filled()));
            chart.draw_series(dots)?;
            let drawn = if curve.dashed {
                chart.draw_series(DashedLineSeries::new(points, 8, 6, style))?
            } else {
                chart.draw_series(LineSeries::new(points, style))?
            };
            // A dash longer than the sample is a whole line.
            let dash = if curve.dashed { 8 } else { 100 };
            let sample = move |(x, y)| DashedPathElement::new([(x, y), (x + 34, y)], dash, 6, style);
            drawn.label(curve.name).legend(sample);
        }
        let mut labels = chart.configure_series_labels();
        labels.position(SeriesLabelPosition::UpperLeft).label_font((FONT, 16)).legend_area_size(40);
        labels.background_style(WHITE.mix(0.85)).border_style(BLACK.mix(0.3)).draw()?;
        Ok(())
    }
}

impl Scale {
    fn height(self, figure: f64) -> f64 {
        match self {
            Self::Linear => figure,
            Self::Doubling => figure.log2(),
        }
    }

    fn label(self, height: f64) -> String {
        match self {
            Self::Linear => format!("{height:.0}"),
            Self::Doubling => format!("{:.0}", height.exp2()),
        }
    }
}

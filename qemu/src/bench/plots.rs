//! Three plots per machine, drawn with `plotters` as SVG: cost by size, cost by the number of
//! mappings, notifies by scatter. Both axes are logarithmic.

use plotters::prelude::*;

use super::beside::Beside;
use super::results::{Op, Provider, Run};
use crate::error::Error;

/// A drawn plot.
pub struct Plot {
    /// Its name, for a file: `size-x86_64`.
    pub name: String,
    /// What it shows.
    pub title: String,
    /// The drawing, an SVG document.
    pub svg: String,
}

/// A line of a plot: what it is, and its points.
struct Series {
    label: String,
    color: RGBColor,
    points: Vec<(f64, f64)>,
}

/// The axes of a plot.
struct Axes {
    x: &'static str,
    y: &'static str,
}

const SIZE: (u32, u32) = (760, 430);
const BLUE: RGBColor = RGBColor(0x1f, 0x77, 0xb4);
const TEAL: RGBColor = RGBColor(0x17, 0xa8, 0x8f);
const PURPLE: RGBColor = RGBColor(0x8c, 0x5f, 0xbf);
const RED: RGBColor = RGBColor(0xd6, 0x27, 0x28);
const ORANGE: RGBColor = RGBColor(0xff, 0x7f, 0x0e);

/// Draws what a run has figures for.
///
/// # Errors
///
/// [`Error::Failed`] if a plot can't be drawn.
pub fn draw(run: &Run, beside: Option<Beside<'_>>) -> Result<Vec<Plot>, Error> {
    let instructions = |op: &Op| op.instructions;
    let notifies = |op: &Op| op.notifies;
    let ours = |words: &[(f64, &str)], provider, number: fn(&Op) -> Option<u64>| {
        points(words, |word| run.find(word, Some(provider)), number)
    };
    let series = |label: &str, color, points| Series { label: label.into(), color, points };
    let theirs = |what, color, words: &[(f64, &str)], number: fn(&Op) -> Option<u64>| {
        let run = beside.map(|beside| beside.fair(words.iter().map(|(_, word)| *word)));
        let label = run.map_or(String::new(), |run| format!("{what}, {}", run.system));
        let points = points(words, |word| run.and_then(|run| run.find(word, None)), number);
        Series { label, color, points }
    };
    let (runs, pages) = (Provider::Runs, Provider::Pages);
    let size = vec![
        series("map, memory known as runs", BLUE, ours(&MAP_SIZES, runs, instructions)),
        series("map, page by page", PURPLE, ours(&MAP_SIZES, pages, instructions)),
        series("unmap", TEAL, ours(&UNMAP_SIZES, runs, instructions)),
        theirs("map", RED, &MAP_SIZES, instructions),
        theirs("unmap", ORANGE, &UNMAP_SIZES, instructions),
    ];
    let growth = vec![
        series("map", BLUE, ours(&MAP_GROWTH, runs, instructions)),
        series("unmap", TEAL, ours(&UNMAP_GROWTH, runs, instructions)),
        theirs("map", RED, &MAP_GROWTH, instructions),
        theirs("unmap", ORANGE, &UNMAP_GROWTH, instructions),
    ];
    let scatter = vec![
        series("map", BLUE, ours(&MAP_SCATTER, pages, notifies)),
        series("unmap", TEAL, ours(&UNMAP_SCATTER, pages, notifies)),
        theirs("map", RED, &MAP_SCATTER, notifies),
        theirs("unmap", ORANGE, &UNMAP_SCATTER, notifies),
    ];
    let axes = [
        Axes { x: "pages of 4 KiB in one call", y: "instructions" },
        Axes { x: "mappings that are there", y: "instructions" },
        Axes { x: "physical runs in one call", y: "notifies" },
    ];
    let plots = names(&run.arch).into_iter().zip([size, growth, scatter]).zip(axes);
    let plots = plots.map(|(((name, title), series), axes)| {
        let svg = plot(&title, &axes, &series)?;
        Ok(Plot { name, title, svg })
    });
    plots.collect()
}

/// Names and titles of the plots of a machine.
pub fn names(arch: &str) -> [(String, String); 3] {
    [
        ("size", "Map and unmap of contiguous memory"),
        ("growth", "Map and unmap of 4 KiB among others"),
        ("notifies", "Exits for scattered memory"),
    ]
    .map(|(name, title)| (format!("{name}-{arch}"), format!("{title} ({arch})")))
}

const MAP_SIZES: [(f64, &str); 4] =
    [(1., "map_4k"), (16., "map_64k"), (512., "map_2m"), (262_144., "map_1g")];
const UNMAP_SIZES: [(f64, &str); 4] =
    [(1., "unmap_4k"), (16., "unmap_64k"), (512., "unmap_2m"), (262_144., "unmap_1g")];
const MAP_GROWTH: [(f64, &str); 4] = [
    (1e3, "map_4k_random@1k"),
    (1e4, "map_4k_random@10k"),
    (1e5, "map_4k_random@100k"),
    (1e6, "map_4k_random@1m"),
];
const UNMAP_GROWTH: [(f64, &str); 4] = [
    (1e3, "unmap_4k_random@1k"),
    (1e4, "unmap_4k_random@10k"),
    (1e5, "unmap_4k_random@100k"),
    (1e6, "unmap_4k_random@1m"),
];
const MAP_SCATTER: [(f64, &str); 5] = [
    (1., "map_4k"),
    (16., "map_scattered@16"),
    (256., "map_scattered@256"),
    (4_096., "map_scattered@4k"),
    (16_384., "map_64m_scattered"),
];
const UNMAP_SCATTER: [(f64, &str); 5] = [
    (1., "unmap_4k"),
    (16., "unmap_scattered@16"),
    (256., "unmap_scattered@256"),
    (4_096., "unmap_scattered@4k"),
    (16_384., "unmap_64m_scattered"),
];

/// The points that are there; a logarithmic axis has no place for 0.
fn points<'r>(
    words: &[(f64, &str)],
    find: impl Fn(&str) -> Option<&'r Op>,
    number: fn(&Op) -> Option<u64>,
) -> Vec<(f64, f64)> {
    let numbers = words.iter().filter_map(|(x, word)| Some((*x, number(find(word)?)? as f64)));
    numbers.filter(|(_, y)| *y > 0.0).collect()
}

fn plot(title: &str, axes: &Axes, series: &[Series]) -> Result<String, Error> {
    let mut svg = String::new();
    draw_into(&mut svg, title, axes, series)
        .map_err(|error| Error::Failed(format!("`{title}` can't be drawn: {error}")))?;
    Ok(svg)
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

fn draw_into(svg: &mut String, title: &str, axes: &Axes, series: &[Series]) -> Drawn {
    let all = || series.iter().flat_map(|one| one.points.iter().copied());
    let span = |values: Vec<f64>| {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        // Nothing to draw: some axis all the same.
        if low.is_finite() { (low / 1.5, high * 2.0) } else { (1.0, 10.0) }
    };
    let (left, right) = span(all().map(|(x, _)| x).collect());
    let (bottom, top) = span(all().map(|(_, y)| y).collect());
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(70)
        .build_cartesian_2d((left..right).log_scale(), (bottom..top).log_scale())?;
    chart
        .configure_mesh()
        .x_desc(axes.x)
        .y_desc(axes.y)
        .light_line_style(WHITE.mix(0.0))
        .bold_line_style(BLACK.mix(0.15))
        .x_label_formatter(&|x| super::table::grouped(*x as u64))
        .y_label_formatter(&|y| super::table::grouped(*y as u64))
        .draw()?;
    for one in series.iter().filter(|one| !one.points.is_empty()) {
        let color = one.color;
        chart
            .draw_series(LineSeries::new(one.points.iter().copied(), color.stroke_width(2)))?
            .label(one.label.clone())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
        let dots = one.points.iter().map(|point| Circle::new(*point, 3, color.filled()));
        chart.draw_series(dots)?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    drop(chart);
    area.present()?;
    Ok(())
}

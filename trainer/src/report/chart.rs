//! Line charts as inline SVG. The page's style sheet sets the colours by class name, for light and dark
//! mode.

use std::fmt::Write as _;

use super::markup::{compact, escape};

/// One line of a chart.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) name: String,
    /// The class of the line's colour: `a` or `b`.
    pub(super) class: &'static str,
    /// Steps and values; a value that is not finite leaves a gap.
    pub(super) points: Vec<(f64, f64)>,
}

/// A chart of one or more series over the training steps.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) series: Vec<Series>,
    /// If `true`, the y axis always includes 0.
    pub(super) from_zero: bool,
}

/// Size of a drawing in pixels at its natural scale.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) width: f64,
    pub(super) height: f64,
}

const MARGIN_LEFT: f64 = 46.0;
const MARGIN_RIGHT: f64 = 10.0;
const MARGIN_TOP: f64 = 10.0;
const MARGIN_BOTTOM: f64 = 26.0;

/// Maps values to pixels.
#[derive(Clone, Copy, Debug)]
struct Frame {
    size: Size,
    x: (f64, f64),
    y: (f64, f64),
}

impl Frame {
    fn x(&self, step: f64) -> f64 {
        let span = (self.x.1 - self.x.0).max(f64::MIN_POSITIVE);
        MARGIN_LEFT + (step - self.x.0) / span * (self.size.width - MARGIN_LEFT - MARGIN_RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        let span = (self.y.1 - self.y.0).max(f64::MIN_POSITIVE);
        let height = self.size.height - MARGIN_TOP - MARGIN_BOTTOM;
        MARGIN_TOP + (self.y.1 - value) / span * height
    }
}

impl Chart {
    /// Draws the chart: the values as a faint line, their moving mean as a strong one.
    pub(super) fn to_svg(&self, size: Size) -> String {
        let mut svg = format!(
            "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">",
            size.width,
            size.height,
            escape(&self.description())
        );
        let Some(frame) = self.frame(size) else {
            let (x, y) = (size.width / 2.0, size.height / 2.0);
            let _ = write!(svg, "<text class=none x={x} y={y}>no values</text></svg>");
            return svg;
        };
        draw_axes(&mut svg, &frame);
        for series in &self.series {
            draw_series(&mut svg, &frame, series);
        }
        self.draw_tips(&mut svg, &frame);
        svg.push_str("</svg>");
        svg
    }

    /// Returns a description of the chart for screen readers.
    fn description(&self) -> String {
        let ends = self.series.iter().filter_map(|series| {
            let means = smoothed(&series.points);
            let ((from, first), (to, last)) = (*means.first()?, *means.last()?);
            let (first, last) = (compact(first), compact(last));
            Some(format!("{} from {first} at step {from} to {last} at step {to}", series.name))
        });
        format!("{}: {}", self.title, ends.collect::<Vec<_>>().join("; "))
    }

    fn frame(&self, size: Size) -> Option<Frame> {
        let points = || self.series.iter().flat_map(|series| finite(&series.points));
        let bounds = |values: &mut dyn Iterator<Item = f64>| {
            values.fold(None, |bounds: Option<(f64, f64)>, value| {
                Some(bounds.map_or((value, value), |(low, high)| (low.min(value), high.max(value))))
            })
        };
        let x = bounds(&mut points().map(|(step, _)| step))?;
        let (mut low, mut high) = bounds(&mut points().map(|(_, value)| value))?;
        if self.from_zero || (low > 0.0 && low < 0.4 * high) {
            low = low.min(0.0);
        }
        if low >= high {
            // Centre a flat line in the chart.
            let spread = if low == 0.0 { 1.0 } else { low.abs() * 0.5 };
            (low, high) =
                if self.from_zero { (low, low + spread) } else { (low - spread, high + spread) };
        }
        let step = tick_step(low, high, 4);
        let y = ((low / step).floor() * step, (high / step).ceil() * step);
        Some(Frame { size, x, y })
    }

    /// Draws an invisible band for each step, with its values as a tooltip.
    fn draw_tips(&self, svg: &mut String, frame: &Frame) {
        let Some(longest) = self.series.iter().max_by_key(|series| series.points.len()) else {
            return;
        };
        let count = longest.points.len() as f64;
        let width = (frame.size.width - MARGIN_LEFT - MARGIN_RIGHT) / count;
        for (step, _) in &longest.points {
            let mut tip = format!("step {step}");
            for series in &self.series {
                if let Some((_, value)) =
                    series.points.iter().find(|(other, _)| (other - step).abs() < 0.5)
                {
                    let _ = write!(tip, "\n{} {}", series.name, compact(*value));
                }
            }
            let _ = write!(
                svg,
                "<rect class=tip x={:.1} y={MARGIN_TOP} width={width:.1} height={:.1}><title>{}\
                 </title></rect>",
                frame.x(*step) - width / 2.0,
                frame.size.height - MARGIN_TOP - MARGIN_BOTTOM,
                escape(&tip)
            );
        }
    }
}

fn draw_axes(svg: &mut String, frame: &Frame) {
    let right = frame.size.width - MARGIN_RIGHT;
    let bottom = frame.size.height - MARGIN_BOTTOM;
    let step = tick_step(frame.y.0, frame.y.1, 4);
    for value in ticks(frame.y.0, frame.y.1, step) {
        let y = frame.y(value);
        let class = if value == 0.0 { "axis" } else { "grid" };
        let _ = write!(
            svg,
            "<path class={class} d=\"M{MARGIN_LEFT} {y:.1}H{right}\"/><text class=y x={} y={:.1}>{}\
             </text>",
            MARGIN_LEFT - 6.0,
            y + 4.0,
            tick_label(value, step)
        );
    }
    let wanted = if frame.size.width > 600.0 { 10 } else { 5 };
    // Steps are whole numbers, and so are the ticks.
    let step = tick_step(frame.x.0, frame.x.1, wanted).max(1.0);
    for value in ticks(frame.x.0, frame.x.1, step) {
        let x = frame.x(value);
        let _ = write!(svg, "<text class=x x={x:.1} y={:.1}>{value}</text>", bottom + 17.0);
    }
}

fn draw_series(svg: &mut String, frame: &Frame, series: &Series) {
    let class = series.class;
    let _ = write!(svg, "<path class=\"raw {class}\" d=\"{}\"/>", path(frame, &series.points));
    let means = smoothed(&series.points);
    let _ = write!(svg, "<path class=\"line {class}\" d=\"{}\"/>", path(frame, &means));
    if let Some((step, value)) = finite(&means).last() {
        let (x, y) = (frame.x(step), frame.y(value));
        let _ = write!(svg, "<circle class=\"end {class}\" cx={x:.1} cy={y:.1} r=3.5 />");
    }
}

/// Returns the points as path commands; the line restarts after a gap.
fn path(frame: &Frame, points: &[(f64, f64)]) -> String {
    let mut commands = String::new();
    let mut pen_down = false;
    for (step, value) in points {
        if value.is_finite() {
            let command = if pen_down { 'L' } else { 'M' };
            let _ = write!(commands, "{command}{:.1} {:.1}", frame.x(*step), frame.y(*value));
        }
        pen_down = value.is_finite();
    }
    commands
}

fn finite(points: &[(f64, f64)]) -> impl Iterator<Item = (f64, f64)> + '_ {
    points.iter().copied().filter(|(_, value)| value.is_finite())
}

/// Returns the odd number of steps over which the strong line averages.
pub(super) fn window(points: usize) -> usize {
    let wanted = points / 10;
    if points < 6 { 1 } else { wanted.max(3) | 1 }
}

/// Returns the mean of each point and its neighbours on both sides, as far as they exist.
pub(super) fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let values: Vec<(f64, f64)> = finite(points).collect();
    let reach = window(values.len()) / 2;
    let mean = |index: usize| {
        let near = &values[index.saturating_sub(reach)..values.len().min(index + reach + 1)];
        near.iter().map(|(_, value)| value).sum::<f64>() / near.len() as f64
    };
    (0..values.len()).map(|index| (values[index].0, mean(index))).collect()
}

/// Returns the smallest of 1, 2 or 5 times a power of ten that yields at most about `wanted` intervals.
fn tick_step(low: f64, high: f64, wanted: usize) -> f64 {
    let raw = (high - low) / wanted as f64;
    if raw <= 0.0 || !raw.is_finite() {
        return 1.0;
    }
    let magnitude = 10f64.powf(raw.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * magnitude >= raw * 0.999);
    factor.unwrap_or(10.0) * magnitude
}

fn ticks(low: f64, high: f64, step: f64) -> Vec<f64> {
    let first = (low / step - 1e-9).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    (first..=last).map(|index| index as f64 * step).collect()
}

/// Formats a tick with as many decimals as the step has.
fn tick_label(value: f64, step: f64) -> String {
    if step < 1e-3 && value != 0.0 {
        return format!("{value:.0e}").replace('-', "−");
    }
    if value.abs() >= 10_000.0 {
        return format!("{}k", value / 1000.0).replace('-', "−");
    }
    let decimals = (-step.log10().floor()).clamp(0.0, 3.0) as usize;
    format!("{value:.decimals$}").replace('-', "−")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(values: &[f64]) -> Chart {
        let points = values.iter().enumerate().map(|(i, v)| (i as f64 + 1.0, *v)).collect();
        let series = Series { name: "reward".to_owned(), class: "a", points };
        Chart { title: "Reward".to_owned(), series: vec![series], from_zero: true }
    }

    const SIZE: Size = Size { width: 400.0, height: 220.0 };

    #[test]
    fn ticks_are_round_and_cover_the_range() {
        for (low, high, expected) in [
            (0.0, 1.0, vec![0.0, 0.5, 1.0]),
            (0.0, 0.83, vec![0.0, 0.5]),
            (0.0, 8.0, vec![0.0, 2.0, 4.0, 6.0, 8.0]),
            (-3.0, 3.0, vec![-2.0, 0.0, 2.0]),
        ] {
            let step = tick_step(low, high, 4);
            assert_eq!(ticks(low, high, step), expected, "{low} to {high}");
        }
        assert_eq!(tick_label(0.25, 0.05), "0.25");
        assert_eq!(tick_label(-2.0, 2.0), "−2");
        assert_eq!(tick_label(2e-4, 1e-4), "2e−4");
        assert_eq!(tick_label(20_000.0, 5000.0), "20k");
    }

    #[test]
    fn every_point_is_inside_the_frame() {
        let svg = chart(&[0.1, 0.9, f64::NAN, -0.4, 0.3]).to_svg(SIZE);
        let raw = svg.split("class=\"raw a\" d=\"").nth(1).unwrap().split('"').next().unwrap();
        let numbers: Vec<f64> = raw
            .split(['M', 'L', ' '])
            .filter(|text| !text.is_empty())
            .map(|text| text.parse().unwrap())
            .collect();
        assert_eq!(numbers.len(), 8, "{raw}");
        assert_eq!(raw.matches('M').count(), 2, "the line must restart after the gap: {raw}");
        for pair in numbers.chunks(2) {
            assert!((MARGIN_LEFT..=SIZE.width - MARGIN_RIGHT).contains(&pair[0]), "{raw}");
            assert!((MARGIN_TOP..=SIZE.height - MARGIN_BOTTOM).contains(&pair[1]), "{raw}");
        }
    }

    #[test]
    fn charts_without_values_or_with_one_say_so_and_do_not_fail() {
        assert!(chart(&[]).to_svg(SIZE).contains("no values"));
        assert!(chart(&[f64::NAN]).to_svg(SIZE).contains("no values"));
        for values in [&[0.0][..], &[0.5, 0.5], &[-1.0], &[1e-9, 1e-9]] {
            let svg = chart(values).to_svg(SIZE);
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            assert!(svg.contains("class=\"line a\""), "{svg}");
        }
    }

    #[test]
    fn smoothing_averages_over_neighbours_and_skips_gaps() {
        let rising: Vec<(f64, f64)> = (0..40).map(|i| (f64::from(i), f64::from(i))).collect();
        assert_eq!(window(rising.len()), 5);
        let means = smoothed(&rising);
        for (raw, mean) in rising.iter().zip(&means).skip(2).take(36) {
            assert!((raw.1 - mean.1).abs() < 1e-9, "a straight line must not change");
        }
        assert_eq!(means.first(), Some(&(0.0, 1.0)), "the mean of 0, 1 and 2");
        assert_eq!(means.last(), Some(&(39.0, 38.0)));
        let spike = [0.0, 0.0, 3.0, f64::NAN, 0.0, 0.0, 0.0];
        let spike: Vec<(f64, f64)> = (1..).map(f64::from).zip(spike).collect();
        let means: Vec<f64> = smoothed(&spike).into_iter().map(|(_, value)| value).collect();
        assert_eq!(means, [0.0, 1.0, 1.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn names_are_escaped() {
        let mut chart = chart(&[0.0, 1.0]);
        chart.title = "<b>\"x\"".to_owned();
        chart.series[0].name = "<script>".to_owned();
        let svg = chart.to_svg(SIZE);
        assert!(!svg.contains("<b>") && !svg.contains("<script>"), "{svg}");
    }
}

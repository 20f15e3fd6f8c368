//! Charts as SVG by hand: presentation attributes and classes only, so that no style has to be allowed inline.

use maud::{Markup, html};

use super::text;

/// A line of a chart.
pub struct Line<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its values, oldest first; `None` where nothing is known.
    pub values: &'a [Option<f64>],
}

/// The classes of the first three parts; further ones are drawn as the third.
const PARTS: [&str; 3] = ["a", "b", "c"];

/// The letter of a part's colour.
pub fn part_class(index: usize) -> &'static str {
    PARTS[index.min(PARTS.len() - 1)]
}

/// A horizontal bar of a share between 0 and 1.
pub fn bar(index: usize, share: f64) -> Markup {
    let width = format!("{:.2}", if share.is_finite() { share.clamp(0.0, 1.0) * 100.0 } else { 0.0 });
    html! {
        svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true" {
            rect class={ "part-" (part_class(index)) } width=(width) height="10" {}
        }
    }
}

/// A small line without axes. Values that are not known leave a gap.
pub fn sparkline(values: &[Option<f64>]) -> Markup {
    let scale = Scale::new(values.iter(), 120.0, 20.0);
    html! {
        svg.spark viewBox="0 0 120 20" preserveAspectRatio="none" aria-hidden="true" {
            @for points in scale.polylines(values) {
                polyline.line-n points=(points) vector-effect="non-scaling-stroke" {}
            }
        }
    }
}

/// Lines over the last minutes, with a description for those who do not see it.
pub fn lines(lines: &[Line<'_>], from: &str, to: &str) -> Markup {
    let scale = Scale::new(lines.iter().flat_map(|line| line.values), 300.0, 70.0);
    let descriptions: Vec<String> = lines.iter().map(describe).collect();
    html! {
        div.plot {
            span.ymax { (text::amount(scale.top)) }
            svg viewBox="0 0 300 70" preserveAspectRatio="none" role="img" aria-label=(descriptions.join("; ")) {
                line.grid x1="0" y1="35" x2="300" y2="35" vector-effect="non-scaling-stroke" {}
                line.axis x1="0" y1=(format!("{:.1}", scale.y(0.0))) x2="300" y2=(format!("{:.1}", scale.y(0.0))) vector-effect="non-scaling-stroke" {}
                @for (index, line) in lines.iter().enumerate() {
                    @for points in scale.polylines(line.values) {
                        polyline class={ "line-" (part_class(index)) } points=(points) vector-effect="non-scaling-stroke" {}
                    }
                }
            }
        }
        p.xaxis { span { (from) } span { (to) } }
        ul.legend {
            @for (index, line) in lines.iter().enumerate() {
                li {
                    svg.key viewBox="0 0 20 10" aria-hidden="true" {
                        polyline class={ "line-" (part_class(index)) } points="0,5 20,5" {}
                    }
                    (text::name(line.name)) " "
                    @match line.values.last().copied().flatten() {
                        Some(value) => { b { (text::amount(value)) } " in the last minute" }
                        None => { span.dim { "not known for the last minute" } }
                    }
                }
            }
        }
    }
}

fn describe(line: &Line<'_>) -> String {
    let known = || line.values.iter().flatten().copied().filter(|value| value.is_finite());
    match (known().reduce(f64::min), known().reduce(f64::max)) {
        (Some(low), Some(high)) => {
            format!("{} between {} and {} a minute", text::plain(line.name), text::amount(low), text::amount(high))
        }
        _ => format!("{}: nothing known", text::plain(line.name)),
    }
}

/// Maps values to a drawing. Zero is always part of it.
struct Scale {
    bottom: f64,
    top: f64,
    width: f64,
    height: f64,
}

impl Scale {
    fn new<'v>(values: impl Iterator<Item = &'v Option<f64>>, width: f64, height: f64) -> Self {
        let (mut bottom, mut top) = (0.0_f64, 0.0_f64);
        for value in values.flatten().filter(|value| value.is_finite()) {
            (bottom, top) = (bottom.min(*value), top.max(*value));
        }
        if top <= bottom {
            top = bottom + 1.0;
        }
        Self { bottom, top, width, height }
    }

    fn y(&self, value: f64) -> f64 {
        // Half a stroke of space at both ends.
        let height = self.height - 2.0;
        1.0 + height - (value - self.bottom) / (self.top - self.bottom) * height
    }

    /// The points of each run of known values.
    fn polylines(&self, values: &[Option<f64>]) -> Vec<String> {
        let step = self.width / (values.len().max(2) - 1) as f64;
        let mut runs = Vec::new();
        let mut run = Vec::new();
        for (index, value) in values.iter().enumerate() {
            match value.filter(|value| value.is_finite()) {
                Some(value) => run.push(format!("{:.1},{:.1}", index as f64 * step, self.y(value))),
                None => runs.push(std::mem::take(&mut run)),
            }
        }
        runs.push(run);
        runs.retain(|run| !run.is_empty());
        let join = |mut run: Vec<String>| {
            // A single point is drawn as a dot.
            if run.len() == 1 {
                run.push(run[0].clone());
            }
            run.join(" ")
        };
        runs.into_iter().map(join).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_a_gap_and_not_zero() {
        let values = [Some(1.0), Some(2.0), None, Some(f64::NAN), Some(2.0)];
        let scale = Scale::new(values.iter(), 100.0, 12.0);
        assert_eq!(scale.polylines(&values), ["0.0,6.0 25.0,1.0", "100.0,1.0 100.0,1.0"]);
    }

    #[test]
    fn a_chart_says_in_words_what_it_draws() {
        let drawn = lines(&[Line { name: "home", values: &[Some(4_004.0), Some(13_922.0)] }], "20:14", "21:14");
        assert!(drawn.into_string().contains("aria-label=\"home between 4,004 and 13,922 a minute\""));
        let empty = lines(&[Line { name: "home", values: &[None, None] }], "20:14", "21:14").into_string();
        assert!(empty.contains("nothing known") && !empty.contains("NaN"), "{empty}");
    }

    #[test]
    fn charts_have_no_inline_style() {
        let drawn = [lines(&[Line { name: "a", values: &[Some(-1.0)] }], "", ""), sparkline(&[None]), bar(7, f64::NAN)];
        for markup in drawn {
            let text = markup.into_string();
            assert!(!text.contains("style="), "{text}");
        }
    }
}

//! SVG plots: curves with their bands, and contrasts with their intervals against the smallest effect of interest.
//! Bands are pointwise and say so: they are a description, not a test.

use plotters::prelude::*;

use super::{
    document::{Curve, Experiment},
    shown,
};

/// A plot that could not be drawn; the page is made without it and says so.
#[derive(Debug, thiserror::Error)]
#[error("the plot could not be drawn: {0}")]
pub struct PlotError(String);

fn failed(error: impl std::fmt::Display) -> PlotError {
    PlotError(error.to_string())
}

/// Colours that stay apart for colour-blind eyes and in print (Okabe and Ito, 2008).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(90, 90, 90),
];
const FONT: &str = "sans-serif";
/// More curves than these cannot be told apart.
const CURVES_MAX: usize = 12;

/// The curves of one metric, as one SVG; `None` where there is nothing to draw.
///
/// # Errors
/// What the drawing library says.
pub fn curves(metric: &str, unit: &str, all: &[Curve]) -> Result<Option<String>, PlotError> {
    let curves: Vec<&Curve> =
        all.iter().filter(|c| c.metric == metric && c.x.len() > 1).take(CURVES_MAX).collect();
    let scale = shown::scale(unit);
    let finite = |values: &[f64]| -> Vec<f64> {
        values.iter().map(|v| scale.scaled(*v)).filter(|v| v.is_finite()).collect()
    };
    let (Some(first), ys) = (
        curves.first(),
        curves.iter().flat_map(|c| [finite(&c.mean), finite(&c.low), finite(&c.high)]).flatten(),
    ) else {
        return Ok(None);
    };
    let Some((low, high)) = ends(ys) else { return Ok(None) };
    let log = first.x_log;
    let axis = |x: f64| if log { x.log10() } else { x };
    let Some((left, right)) = ends(curves.iter().flat_map(|c| c.x.iter().map(|x| axis(*x)))) else {
        return Ok(None);
    };
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (900, 340)).into_drawing_area();
        // The legend stands beside the curves, never on them.
        let (left_side, legend) = root.split_horizontally(640);
        let mut chart = ChartBuilder::on(&left_side)
            .margin(10)
            .x_label_area_size(38)
            .y_label_area_size(64)
            .build_cartesian_2d(left..right, low..high)
            .map_err(failed)?;
        let x_name = if log { format!("{} (log scale)", first.x_name) } else { first.x_name.clone() };
        let y_name =
            if scale.unit.is_empty() { metric.to_owned() } else { format!("{metric} ({})", scale.unit) };
        chart
            .configure_mesh()
            .light_line_style(BLACK.mix(0.04))
            .bold_line_style(BLACK.mix(0.10))
            .label_style((FONT, 13))
            .x_desc(x_name)
            .y_desc(y_name)
            .x_label_formatter(&|x| if log { format!("{:.3e}", 10f64.powf(*x)) } else { format!("{x:.0}") })
            .draw()
            .map_err(failed)?;
        for (index, curve) in curves.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let dashed = index >= COLOURS.len();
            let at = |values: &[f64]| -> Vec<(f64, f64)> {
                let pairs = curve.x.iter().zip(values).map(|(x, y)| (axis(*x), scale.scaled(*y)));
                pairs.filter(|(x, y)| x.is_finite() && y.is_finite()).collect()
            };
            let mut band = at(&curve.low);
            band.extend(at(&curve.high).into_iter().rev());
            chart.draw_series(std::iter::once(Polygon::new(band, colour.mix(0.13)))).map_err(failed)?;
            let style = colour.stroke_width(if dashed { 1 } else { 2 });
            chart.draw_series(LineSeries::new(at(&curve.mean), style)).map_err(failed)?;
            let y = 18 + 22 * i32::try_from(index).unwrap_or(0);
            legend.draw(&PathElement::new(vec![(4, y), (24, y)], style)).map_err(failed)?;
            legend.draw(&Text::new(curve.label.clone(), (30, y - 7), (FONT, 13))).map_err(failed)?;
        }
        root.present().map_err(failed)?;
    }
    Ok(Some(inline(&svg)))
}

/// The contrasts' intervals against zero and ±Δ, as one SVG; `None` where there are none.
///
/// # Errors
/// What the drawing library says.
pub fn intervals(experiment: &Experiment) -> Result<Option<String>, PlotError> {
    let scale = shown::scale(&experiment.metric.unit);
    let delta = scale.scaled(experiment.smallest_effect);
    let rows: Vec<(String, f64, f64, f64)> = experiment
        .contrasts
        .iter()
        .filter_map(|c| {
            let numbers = [c.estimate?, c.low?, c.high?].map(|v| scale.scaled(v));
            numbers
                .iter()
                .all(|v| v.is_finite())
                .then(|| (c.label.clone(), numbers[0], numbers[1], numbers[2]))
        })
        .collect();
    let spread = rows.iter().flat_map(|r| [r.2, r.3]).chain([0.0, delta, -delta]);
    let (false, Some((left, right))) = (rows.is_empty(), ends(spread)) else { return Ok(None) };
    let height = 90 + 46 * u32::try_from(rows.len()).unwrap_or(4);
    let count = rows.len() as f64;
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (760, height)).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin(10)
            .x_label_area_size(38)
            .build_cartesian_2d(left..right, 0.0..count)
            .map_err(failed)?;
        let unit = if scale.unit.is_empty() { String::new() } else { format!(", {}", scale.unit) };
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .light_line_style(BLACK.mix(0.04))
            .bold_line_style(BLACK.mix(0.08))
            .label_style((FONT, 13))
            .x_desc(format!(
                "difference in {}{unit} (grey: less than the smallest effect of interest)",
                experiment.metric.name
            ))
            .draw()
            .map_err(failed)?;
        let grey = Rectangle::new([(-delta, 0.0), (delta, count)], BLACK.mix(0.07).filled());
        chart.draw_series(std::iter::once(grey)).map_err(failed)?;
        let zero = PathElement::new(vec![(0.0, 0.0), (0.0, count)], BLACK.mix(0.5).stroke_width(1));
        chart.draw_series(std::iter::once(zero)).map_err(failed)?;
        for (index, (label, estimate, low, high)) in rows.into_iter().enumerate() {
            let y = count - index as f64 - 0.6;
            let colour = COLOURS[0];
            let line = PathElement::new(vec![(low, y), (high, y)], colour.stroke_width(3));
            chart.draw_series(std::iter::once(line)).map_err(failed)?;
            chart
                .draw_series(std::iter::once(Circle::new((estimate, y), 5, colour.filled())))
                .map_err(failed)?;
            let text = Text::new(label, (left + (right - left) * 0.01, y + 0.42), (FONT, 13));
            chart.draw_series(std::iter::once(text)).map_err(failed)?;
        }
        root.present().map_err(failed)?;
    }
    Ok(Some(inline(&svg)))
}

/// The least and the greatest with some room; `None` where nothing is finite.
fn ends(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let (low, high) = values
        .filter(|v| v.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    if low > high {
        return None;
    }
    let room = if high > low { (high - low) * 0.05 } else { low.abs().max(1e-9) * 0.05 };
    Some((low - room, high + room))
}

/// For a page: no XML head, and as wide as the page allows.
fn inline(svg: &str) -> String {
    let from = svg.find("<svg").unwrap_or(0);
    // A page needs no namespace, and without it the page holds no address at all.
    let bare = svg[from..].replacen(" xmlns=\"http://www.w3.org/2000/svg\"", "", 1);
    bare.replacen("<svg ", "<svg style=\"max-width:100%;height:auto\" role=\"img\" ", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(label: &str, mean: Vec<f64>) -> Curve {
        let n = mean.len();
        Curve {
            metric: "loss".into(),
            label: label.into(),
            variant: "v1".into(),
            x: (1..=n).map(|i| i as f64).collect(),
            x_name: "step".into(),
            x_log: false,
            low: mean.clone(),
            high: mean.clone(),
            mean,
        }
    }

    #[test]
    fn a_curve_is_drawn_and_its_label_escaped() {
        let svg = curves("loss", "nats", &[curve("<b>&", vec![1.0, f64::NAN, 0.5])]).unwrap().unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("&lt;b&gt;") && !svg.contains("<b>"), "{svg}");
    }

    #[test]
    fn nothing_finite_is_no_plot() {
        assert!(curves("loss", "nats", &[curve("a", vec![f64::NAN, f64::NAN])]).unwrap().is_none());
        assert!(curves("other", "nats", &[curve("a", vec![1.0, 2.0])]).unwrap().is_none());
    }
}

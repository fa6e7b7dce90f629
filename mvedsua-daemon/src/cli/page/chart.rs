//! Two histograms, one above and one below the same axis, so that no colour is needed to tell them apart.

use maud::{Markup, html};

use crate::cli::size::count;
use crate::monitor::Bins;
use crate::monitor::render::duration;

const WIDTH: f64 = 420.0;
/// The height of one histogram.
const HALF: f64 = 70.0;
/// The widest bar.
const WIDEST: f64 = 48.0;
/// The room for the axis between the two.
const AXIS: f64 = 18.0;
/// The room for the names at the top and at the bottom.
const NAME: f64 = 16.0;

/// One of the two.
pub(super) struct Side<'a> {
    pub(super) name: &'a str,
    pub(super) bins: Option<&'a Bins>,
}

/// Draws both; `id` is unlike that of every other picture of the page.
#[expect(clippy::cast_precision_loss, reason = "it is drawn in some hundred columns")]
pub(super) fn mirrored(id: &str, title: &str, above: &Side<'_>, below: &Side<'_>) -> Markup {
    let octaves = |side: &Side<'_>| side.bins.map(Bins::octaves).unwrap_or_default();
    let (up, down) = (octaves(above), octaves(below));
    let all = || up.iter().chain(&down).map(|(octave, _)| *octave);
    let (Some(first), Some(last)) = (all().min(), all().max()) else { return html! {} };
    let bars = f64::from(last - first + 1);
    let width = (WIDTH / bars).min(WIDEST);
    let height = 2.0 * (HALF + NAME) + AXIS;
    let middle = NAME + HALF;
    let text = format!("{}; {}. The table has the numbers.", told(above), told(below));
    let half = |side: &[(u32, u64)], is_above: bool| {
        // Each has its own scale: what is compared is how the calls are spread.
        let total: u64 = side.iter().map(|(_, count)| count).sum::<u64>().max(1);
        let most = side.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1) as f64;
        html! {
            @for (octave, number) in side.iter().filter(|(_, number)| *number > 0) {
                @let tall = (*number as f64 / most * HALF).max(1.0);
                @let y = if is_above { middle - tall } else { middle + AXIS };
                rect .(if is_above { "bar above" } else { "bar below" })
                    x=(round(f64::from(octave - first) * width + 0.5)) y=(round(y))
                    width=(round((width - 1.0).max(1.0))) height=(round(tall)) {
                    title {
                        (duration(1 << octave)) " to " (duration(2 << octave)) ": " (count(*number)) " calls, "
                        (format!("{:.2}", *number as f64 * 100.0 / total as f64)) " %"
                    }
                }
            }
        }
    };
    // As many labels as have room.
    let step = ((50.0 / width).ceil() as u32).max(1);
    html! {
        svg role="img" aria-labelledby={ (id) "-title " (id) "-text" } viewBox={ "0 0 " (WIDTH) " " (height) } {
            title id={ (id) "-title" } { (title) }
            desc id={ (id) "-text" } { (text) }
            text.label x="0" y="12" { (above.name) }
            (half(&up, true))
            @for octave in (first..=last).step_by(step as usize) {
                text.axis x=(round(f64::from(octave - first) * width)) y=(round(middle + 13.0)) { (duration(1 << octave)) }
            }
            (half(&down, false))
            text.label x="0" y=(round(height - 3.0)) { (below.name) }
        }
    }
}

fn told(side: &Side<'_>) -> String {
    let Some(bins) = side.bins.filter(|bins| bins.total() > 0) else { return format!("{}: no calls", side.name) };
    let quantile = |p| bins.quantile(p).map_or("unknown".to_owned(), duration);
    format!(
        "{}: {} calls, half of them within {}, 99 of 100 within {}",
        side.name,
        count(bins.total()),
        quantile(0.5),
        quantile(0.99)
    )
}

fn round(value: f64) -> String {
    format!("{value:.1}")
}

//! Draws charts as SVG. Each chart also has a text alternative for users who cannot see it.

use std::fmt::Write as _;

use chrono::DateTime;
use maud::{Markup, html};

use super::detail::Channel;
use crate::support::hours::HOURS;

/// Width of a bar: 4, of which 1 is a gap.
const BAR: usize = 4;
const BARS_HEIGHT: u64 = 20;
/// Size of a line chart, in the units of its drawing.
const WIDTH: f64 = 320.0;
const HEIGHT: f64 = 90.0;
const MARGIN: f64 = 4.0;

/// The counts of the last 24 hours; `what` is, for example, "rows".
pub fn bars(per_hour: &[u32; HOURS], what: &str) -> Markup {
    let most = per_hour.iter().copied().max().unwrap_or_default().max(1);
    let mut path = String::new();
    for (hour, count) in per_hour.iter().enumerate().filter(|(_, count)| **count > 0) {
        // At least one unit high, so that every count above zero is visible.
        let height = (u64::from(*count) * BARS_HEIGHT / u64::from(most)).max(1);
        let _infallible = write!(path, "M{} {BARS_HEIGHT}v-{height}h3v{height}z", hour * BAR);
    }
    let sum: u64 = per_hour.iter().map(|count| u64::from(*count)).sum();
    let last = per_hour[HOURS - 1];
    let words = format!("{sum} {what} in 24 hours, {last} in this one, at most {most} in one");
    html! {
        svg.bars preserveAspectRatio="none" viewBox=(format!("0 0 {} {BARS_HEIGHT}", HOURS * BAR)) role="img" aria-label=(words) {
            title { (words) }
            path d=(path) {}
        }
    }
}

/// The results of the last polls, the latest at the right.
pub fn strip(polls: &str) -> Markup {
    let kinds = [('r', "with rows", "r", 0, 10), ('e', "without", "e", 3, 4), ('f', "failed", "f", 0, 10)];
    let count = polls.chars().count().min(HOURS);
    let words = kinds.map(|(letter, word, ..)| format!("{} {word}", polls.matches(letter).count())).join(", ");
    let words = format!("last {count} polls: {words}");
    html! {
        svg.strip preserveAspectRatio="none" viewBox=(format!("0 0 {} 10", HOURS * BAR)) role="img" aria-label=(words) {
            title { (words) }
            @for (letter, _, class, top, height) in kinds {
                @let path = polls.chars().take(HOURS).enumerate().filter(|(_, other)| *other == letter)
                    .map(|(place, _)| format!("M{} {top}h3v{height}h-3z", (HOURS - count + place) * BAR))
                    .collect::<String>();
                @if !path.is_empty() {
                    path class=(class) d=(path) {}
                }
            }
        }
    }
}

/// A channel's last values, at most `most` of them, with the lowest and the highest.
pub fn line(channel: &Channel, most: usize) -> Markup {
    let points = &channel.points[channel.points.len().saturating_sub(most)..];
    let (Some((first_at, first)), Some((last_at, _))) = (points.first(), points.last()) else {
        return html! {};
    };
    let (low, high) =
        points.iter().fold((*first, *first), |(low, high), (_, value)| (low.min(*value), high.max(*value)));
    let x = |at: i64| {
        let span = (last_at - first_at).max(1) as f64;
        MARGIN + (at - first_at) as f64 / span * (WIDTH - 2.0 * MARGIN)
    };
    let y = |value: f64| {
        // Halving avoids an overflow if the span is too large for a number.
        let share = if high > low { value / 2.0 - low / 2.0 } else { 0.5 }
            / if high > low { high / 2.0 - low / 2.0 } else { 1.0 };
        HEIGHT - MARGIN - share * (HEIGHT - 2.0 * MARGIN)
    };
    let place = |(at, value): &(i64, f64)| format!("{:.1},{:.1}", x(*at), y(*value));
    let line = points.iter().map(place).collect::<Vec<_>>().join(" ");
    let (from, until) = (minute(*first_at), minute(*last_at));
    let words = format!(
        "{:.60}: {} values from {from} to {until}, lowest {}, highest {}",
        channel.name,
        points.len(),
        number(low),
        number(high)
    );
    html! {
        svg.line viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(words) {
            title { (words) }
            @if points.len() == 1 {
                circle cx=(format!("{:.1}", WIDTH / 2.0)) cy=(format!("{:.1}", y(*first))) r="3" {}
            } @else {
                polyline points=(line) {}
            }
        }
        p.axis { span { (number(low)) " to " (number(high)) } span { (from) " – " (until) " UTC" } }
    }
}

/// A time to the minute, in UTC.
fn minute(millis: i64) -> String {
    DateTime::from_timestamp_millis(millis).map_or_else(String::new, |at| at.format("%Y-%m-%d %H:%M").to_string())
}

/// A number with at most about six significant digits.
fn number(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 || (1e-4..1e9).contains(&size) {
        let digits = if size >= 100_000.0 {
            0
        } else if size >= 100.0 {
            2
        } else {
            5
        };
        let text = format!("{value:.digits$}");
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    } else {
        format!("{value:.3e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(values: &[f64]) -> Channel {
        let points =
            values.iter().enumerate().map(|(at, value)| (i64::try_from(at).unwrap() * 60_000, *value)).collect();
        Channel { name: "ch<0>".into(), points, last: None }
    }

    #[test]
    fn bars_are_scaled_to_the_highest_and_small_ones_are_seen() {
        let mut per_hour = [0; HOURS];
        (per_hour[0], per_hour[23]) = (1, 1000);
        let svg = bars(&per_hour, "rows").into_string();
        assert!(svg.contains(r#"d="M0 20v-1h3v1zM92 20v-20h3v20z""#), "{svg}");
        assert!(svg.contains("1001 rows in 24 hours, 1000 in this one"), "{svg}");
        assert!(bars(&[0; HOURS], "rows").into_string().contains(r#"d="""#));
    }

    #[test]
    fn the_last_poll_is_at_the_right_and_odd_letters_are_nothing() {
        let svg = strip("xfer").into_string();
        assert!(svg.contains(r#"class="f" d="M84 0"#) && svg.contains(r#"class="r" d="M92 0"#), "{svg}");
        assert!(
            svg.contains("1 with rows, 1 without, 1 failed")
                && !svg.contains('x'.to_string().as_str().repeat(2).as_str())
        );
        assert!(strip(&"e".repeat(1000)).into_string().len() < 700);
    }

    #[test]
    fn lines_stay_within_their_frame_whatever_the_values() {
        for values in [&[1.0, 2.0, 1.5][..], &[f64::MIN, f64::MAX], &[5.0, 5.0], &[1e-300, -1e-300, 0.0]] {
            let svg = line(&channel(values), 240).into_string();
            let points = svg.split("polyline points=\"").nth(1).unwrap().split('"').next().unwrap();
            for point in points.split(' ') {
                let (x, y) = point.split_once(',').unwrap();
                let [x, y] = [x, y].map(|number| number.parse::<f64>().unwrap());
                assert!((0.0..=WIDTH).contains(&x) && (0.0..=HEIGHT).contains(&y), "{values:?}: {point}");
            }
            assert!(svg.contains("ch&lt;0&gt;: "), "{svg}");
        }
        assert!(line(&channel(&[7.0]), 240).into_string().contains("<circle"));
        assert_eq!(line(&channel(&[]), 240).into_string(), "");
        assert!(line(&channel(&[9.0, 1.0, 2.0]), 2).into_string().contains("2 values"));
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in
            [(0.0, "0"), (21.5, "21.5"), (-0.25, "-0.25"), (51_000.0, "51000"), (1e12, "1.000e12"), (1e-9, "1.000e-9")]
        {
            assert_eq!(number(value), text);
        }
    }
}

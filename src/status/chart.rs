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
const MARGIN: f64 = 6.0;
/// Room for the numbers of the axis.
const LEFT: f64 = 44.0;
const STRIP_HEIGHT: f64 = 20.0;
/// The least length of an axis, as a share of the largest value.
const LEAST_SPAN: f64 = 0.1;

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

/// The last values of a channel, at most `most`.
pub fn shown(channel: &Channel, most: usize) -> &[(i64, f64)] {
    &channel.points[channel.points.len().saturating_sub(most)..]
}

/// The first and the last time in the charts of some channels, which all have it as their axis.
pub fn range<'a>(channels: impl Iterator<Item = &'a Channel> + Clone, most: usize) -> (i64, i64) {
    let first = channels.clone().filter_map(|channel| shown(channel, most).first()).map(|(at, _)| *at).min();
    let last = channels.filter_map(|channel| shown(channel, most).last()).map(|(at, _)| *at).max();
    (first.unwrap_or_default(), last.unwrap_or_default())
}

/// The middle of the axis of values, and half its length. The axis is at least as long as a tenth of the largest value, so
/// that noise does not look like a swing.
fn axis(low: f64, high: f64) -> (f64, f64) {
    // Halves, because the length can be too large for a number.
    let (middle, half) = (low / 2.0 + high / 2.0, high / 2.0 - low / 2.0);
    let half = half.max(low.abs().max(high.abs()) * LEAST_SPAN / 2.0);
    (middle, if half > 0.0 { half } else { 0.5 })
}

/// A channel's last values, at most `most` of them, from `from` to `until`, with the lowest and the highest. One that is only
/// ever 0 or 1 is a strip.
pub fn line(channel: &Channel, most: usize, (from, until): (i64, i64)) -> Markup {
    let points = shown(channel, most);
    let Some((_, first)) = points.first() else { return html! {} };
    let (low, high) =
        points.iter().fold((*first, *first), |(low, high), (_, value)| (low.min(*value), high.max(*value)));
    let x = |at: i64| LEFT + (at - from) as f64 / (until - from).max(1) as f64 * (WIDTH - LEFT - MARGIN);
    let is_switch = points.iter().all(|(_, value)| *value == 0.0 || *value == 1.0);
    let (begins, ends) = (minute(from), minute(until));
    let words = format!(
        "{:.60}: {} values from {begins} to {ends}, lowest {}, highest {}",
        channel.name,
        points.len(),
        number(low),
        number(high)
    );
    html! {
        @if is_switch { (switch(points, x, until, &words)) } @else { (curve(points, x, axis(low, high), &words)) }
        p.axis { span { (number(low)) " to " (number(high)) } span { (begins) " – " (ends) " UTC" } }
    }
}

fn curve(points: &[(i64, f64)], x: impl Fn(i64) -> f64, (middle, half): (f64, f64), words: &str) -> Markup {
    let bottom = middle - half;
    let y = |value: f64| HEIGHT - MARGIN - (value / 2.0 - bottom / 2.0) / half * (HEIGHT - 2.0 * MARGIN);
    let place = |(at, value): &(i64, f64)| format!("{:.1},{:.1}", x(*at), y(*value));
    let line = points.iter().map(place).collect::<Vec<_>>().join(" ");
    let top = (middle + half).min(f64::MAX);
    html! {
        svg.line viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(words) {
            title { (words) }
            @for (value, at) in [(top, MARGIN), (middle, HEIGHT / 2.0), (bottom.max(f64::MIN), HEIGHT - MARGIN)] {
                path.grid d=(format!("M{LEFT} {at}H{WIDTH}")) {}
                text x=(LEFT - 4.0) y=(at + 3.0) { (tick(value, half)) }
            }
            @if let [(at, value)] = points {
                circle cx=(format!("{:.1}", x(*at))) cy=(format!("{:.1}", y(*value))) r="3" {}
            } @else {
                polyline points=(line) {}
            }
        }
    }
}

/// When it was 1: each value lasts until the next.
fn switch(points: &[(i64, f64)], x: impl Fn(i64) -> f64, until: i64, words: &str) -> Markup {
    let mut path = String::new();
    let mut place = 0;
    while place < points.len() {
        let (began, value) = points[place];
        let next = points[place..].iter().position(|(_, other)| *other != value).map(|count| place + count);
        if value == 1.0 {
            let end = next.map_or(until, |next| points[next].0);
            // At least so wide that it is seen.
            let (left, width) = (x(began).min(WIDTH - 2.0), (x(end) - x(began)).max(1.5));
            let _infallible = write!(path, "M{left:.1} 4h{width:.1}v12h-{width:.1}z");
        }
        place = next.unwrap_or(points.len());
    }
    html! {
        svg.line.switch viewBox=(format!("0 0 {WIDTH} {STRIP_HEIGHT}")) role="img" aria-label=(words) {
            title { (words) }
            text x=(LEFT - 4.0) y="13" { "1" }
            path.grid d=(format!("M{LEFT} 16H{WIDTH}")) {}
            path.on d=(path) {}
        }
    }
}

/// A number at an axis that is `2 * half` long: no more digits than tell the numbers of the axis apart.
fn tick(value: f64, half: f64) -> String {
    let size = value.abs().max(half);
    if !(1e-3..1e6).contains(&size) {
        return format!("{value:.1e}");
    }
    let digits = (2.0 - half.log10().floor()).clamp(0.0, 5.0) as usize;
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
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
            let of = channel(values);
            let svg = line(&of, 240, range([&of].into_iter(), 240)).into_string();
            let points = svg.split("polyline points=\"").nth(1).unwrap().split('"').next().unwrap();
            for point in points.split(' ') {
                let (x, y) = point.split_once(',').unwrap();
                let [x, y] = [x, y].map(|number| number.parse::<f64>().unwrap());
                assert!((0.0..=WIDTH).contains(&x) && (0.0..=HEIGHT).contains(&y), "{values:?}: {point}");
            }
            assert!(svg.contains("ch&lt;0&gt;: "), "{svg}");
        }
        assert!(line(&channel(&[7.0]), 240, (0, 0)).into_string().contains("<circle"));
        assert_eq!(line(&channel(&[]), 240, (0, 0)).into_string(), "");
        assert!(line(&channel(&[9.0, 1.0, 2.0]), 2, (0, 120_000)).into_string().contains("2 values"));
    }

    /// The places of a chart's points.
    fn drawn(svg: &str) -> Vec<(f64, f64)> {
        let points = svg.split("polyline points=\"").nth(1).unwrap().split('"').next().unwrap();
        let numbers =
            |point: &str| point.split_once(',').map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap())).unwrap();
        points.split(' ').map(numbers).collect()
    }

    #[test]
    fn noise_is_no_swing_and_the_axis_has_numbers() {
        let svg = line(&channel(&[100.0, 101.0, 100.5]), 240, (0, 120_000)).into_string();
        let heights: Vec<_> = drawn(&svg).into_iter().map(|(_, y)| y).collect();
        assert!(heights[0] - heights[1] < HEIGHT / 8.0, "{heights:?}");
        for tick in [">105.55<", ">100.5<", ">95.45<"] {
            assert!(svg.contains(tick), "{tick} is missing in {svg}");
        }
        let swing = drawn(&line(&channel(&[1.0, 9.0]), 240, (0, 60_000)).into_string());
        assert!(swing[0].1 - swing[1].1 > HEIGHT / 2.0, "{swing:?}");
    }

    #[test]
    fn all_channels_have_one_range_of_time() {
        let (short, long) = (channel(&[5.0, 7.0]), channel(&[5.0, 7.0, 6.0, 5.0, 9.0]));
        let range = range([&short, &long].into_iter(), 240);
        assert_eq!(range, (0, 240_000));
        let end = |channel| drawn(&line(channel, 240, range).into_string()).last().unwrap().0;
        assert!(end(&short) < WIDTH / 2.0 && end(&long) > WIDTH - 10.0);
    }

    #[test]
    fn what_is_only_on_or_off_is_a_strip() {
        let svg = line(&channel(&[0.0, 1.0, 1.0, 0.0, 1.0]), 240, (0, 240_000)).into_string();
        assert!(!svg.contains("polyline"), "{svg}");
        assert_eq!(svg.split("class=\"on\" d=\"").nth(1).unwrap().matches("v12").count(), 2, "{svg}");
        assert!(svg.contains("M111.5 4h135.0v12h-135.0z"), "{svg}");
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

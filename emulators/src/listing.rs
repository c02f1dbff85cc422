//! Lists what a control endpoint takes, for `GET /`.

use axum::{Router, routing::get};

/// Methods, path, and what it is for.
pub type Route = (&'static str, &'static str, &'static str);

/// The route `/` with a line for each of `routes`.
pub fn router(routes: &'static [&'static [Route]]) -> Router {
    Router::new().route("/", get(async move || text(routes.concat().as_slice())))
}

fn text(routes: &[Route]) -> String {
    let width = |part: fn(&Route) -> &str| routes.iter().map(|route| part(route).len()).max().unwrap_or_default();
    let (methods, paths) = (width(|route| route.0), width(|route| route.1));
    let line = |(method, path, purpose): &Route| format!("{method:methods$}  {path:paths$}  {purpose}\n");
    routes.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_a_line_in_columns() {
        let routes = [("GET, PUT", "/faults", "misbehaves"), ("PUT", "/away", "refuses connections")];
        assert_eq!(text(&routes), "GET, PUT  /faults  misbehaves\nPUT       /away    refuses connections\n");
    }
}

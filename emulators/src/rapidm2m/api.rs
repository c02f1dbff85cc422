//! The API itself: turns a request into its answer.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::Utc;
use serde_json::json;

use super::{
    Backend,
    faults::Faults,
    journal::Entry,
    request::{Resource, Selection, Target, json_parameter, segments},
    respond::{Answer, Content, outcome, respond},
    sites::{self, Site},
    table::Table,
};
use crate::{door::Written, steps::Step};

/// Longest accepted path and query, in bytes. The journal stores them.
const LONGEST_TARGET: usize = 16 * 1024;

pub fn router(backend: Arc<Backend>) -> Router {
    // One handler for every path: the names in a path must be split before they are decoded.
    Router::new().fallback(handle).with_state(backend)
}

async fn handle(
    State(backend): State<Arc<Backend>>,
    ConnectInfo(written): ConnectInfo<Written>,
    request: Request,
) -> Response<Body> {
    let received_at = Utc::now();
    let (method, uri) = (request.method(), request.uri());
    if uri.path_and_query().is_some_and(|target| target.as_str().len() > LONGEST_TARGET) {
        return Response::builder().status(StatusCode::URI_TOO_LONG).body(Body::empty()).unwrap_or_default();
    }
    let target = segments(uri.path()).and_then(|segments| Target::parse(&segments));
    let site = target.as_ref().and_then(|target| backend.site(target));
    let is_for_rows =
        target.as_ref().is_some_and(|target| matches!(target.resource, Resource::Histdata | Resource::Youngest));
    if is_for_rows {
        backend.steps.reached(Step::RowsAsked);
    }
    let (answer, effect, content_type) = {
        let mut faults = backend.faults();
        let mut names = Vec::new();
        names.extend(target.as_ref().and_then(|target| target.site.as_deref()));
        names.extend(site.iter().flat_map(|site| [site.name.as_str(), site.uid.as_str()]));
        let effect = faults.take(target.as_ref().map(|target| target.resource), &names);
        let answer = if !authorized(request.headers(), &backend.user, &backend.password) {
            Answer::error(StatusCode::UNAUTHORIZED, "unauthorized")
        } else {
            answer(&backend, &faults, method, uri, target, site, received_at.timestamp_millis())
        };
        let content_type = HeaderValue::from_str(&faults.content_type);
        (answer, effect, content_type.unwrap_or_else(|_| HeaderValue::from_static("application/json")))
    };
    let (status, rows) = outcome(&answer, effect.as_ref());
    let (path, json) = (uri.path().to_owned(), json_parameter(uri));
    let entry = Entry { method: method.to_string(), path, json, status, rows, received_at };
    let response = respond(answer, effect, content_type, backend.journal.record(entry)).await;
    if is_for_rows { backend.steps.when_written(Step::RowsAnswered, &written, response) } else { response }
}

fn authorized(headers: &HeaderMap, user: &str, password: &str) -> bool {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some((scheme, credentials)) = given.and_then(|given| given.split_once(' ')) else { return false };
    let decoded = BASE64_STANDARD.decode(credentials.trim());
    scheme.eq_ignore_ascii_case("basic") && decoded.is_ok_and(|given| given == format!("{user}:{password}").as_bytes())
}

fn answer(
    backend: &Backend,
    faults: &Faults,
    method: &Method,
    uri: &Uri,
    target: Option<Target>,
    site: Option<Arc<Site>>,
    now_ms: i64,
) -> Answer {
    let Some(target) = target else { return Answer::error(StatusCode::NOT_FOUND, "unknown resource") };
    if method != Method::GET {
        return Answer::error(StatusCode::METHOD_NOT_ALLOWED, "only GET is supported");
    }
    if target.customer.as_deref().is_some_and(|customer| !backend.is_customer(customer)) {
        return Answer::error(StatusCode::NOT_FOUND, "unknown customer");
    }
    let customer = &backend.customer;
    let newest = now_ms - now_ms.rem_euclid(backend.grid.interval_ms);
    let site = match (target.resource, site) {
        (Resource::Me, _) => {
            let user = json!({ "name": backend.user, "email": format!("{}@example.com", backend.user) });
            return Answer::ok(json!({ "user": user, "customers": [customer] }));
        }
        (Resource::Customers, _) => {
            let uid = sites::uid(customer);
            return Answer::ok(json!([{ "_uid": uid, "customer_id": customer, "name": customer }]));
        }
        (Resource::Sites, _) => {
            return Answer::ok(backend.sites().all().iter().map(|site| site.description(customer, newest)).collect());
        }
        (_, None) => return Answer::error(StatusCode::NOT_FOUND, "unknown site"),
        (_, Some(site)) => site,
    };
    match target.resource {
        Resource::Site => Answer::ok(site.description(customer, newest)),
        Resource::Blueprint => Answer::ok(site.blueprint()),
        resource => {
            let json = json_parameter(uri);
            let Some(mut selection) = Selection::parse(json.as_deref(), &site, faults.inclusive()) else {
                return Answer::error(StatusCode::BAD_REQUEST, "missing or invalid parameters");
            };
            let youngest = resource == Resource::Youngest;
            if youngest {
                (selection.window, selection.open) = (i64::MIN..i64::MAX, true);
            }
            let table = Table::new(site, target.container, selection, backend.grid, now_ms, faults.shape());
            let table = if youngest { table.youngest() } else { table };
            Answer { status: StatusCode::OK, content: Content::Rows(table) }
        }
    }
}

//! Logs the line that sums up a function's work and its requests to services.

/// Logs fields, the counters of the services ([`Readings`](crate::support::meter::Readings)) and a text at a level. A
/// service without requests has no fields.
macro_rules! summary_line {
    ($level:expr, $readings:expr, { $($fields:tt)* }, $($text:tt)+) => {{
        let crate::support::meter::Readings { backend, ledger, hub, dps, unconfirmed } = $readings;
        tracing::event!(
            $level,
            $($fields)*
            backend.requests = backend.requests,
            backend.failures = backend.failures,
            backend.throttled = backend.throttled,
            backend.median_ms = backend.median_ms,
            backend.p95_ms = backend.p95_ms,
            backend.max_ms = backend.max_ms,
            backend.bytes = backend.bytes,
            ledger.requests = ledger.requests,
            ledger.failures = ledger.failures,
            ledger.throttled = ledger.throttled,
            ledger.median_ms = ledger.median_ms,
            ledger.p95_ms = ledger.p95_ms,
            ledger.max_ms = ledger.max_ms,
            hub.requests = hub.requests,
            hub.failures = hub.failures,
            hub.throttled = hub.throttled,
            hub.median_ms = hub.median_ms,
            hub.p95_ms = hub.p95_ms,
            hub.max_ms = hub.max_ms,
            hub.bytes = hub.bytes,
            hub.unconfirmed = unconfirmed,
            dps.requests = dps.requests,
            dps.failures = dps.failures,
            dps.throttled = dps.throttled,
            dps.median_ms = dps.median_ms,
            dps.p95_ms = dps.p95_ms,
            dps.max_ms = dps.max_ms,
            $($text)+
        )
    }};
}

pub(crate) use summary_line;

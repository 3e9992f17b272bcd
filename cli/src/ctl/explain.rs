//! `ctl explain`.

use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::print;
use crate::{
    exit::{Exit, Outcome},
    http,
};

/// Asks a router where a request would go, and why.
pub(super) async fn run(
    router: &str,
    method: &str,
    url: &str,
    headers: &[String],
    json: bool,
) -> Outcome {
    for header in headers {
        if !header.contains(':') {
            return Err(Exit::Usage(format!("-H `{header}`: write `Name: value`")));
        }
    }
    let pairs = [("method", method), ("url", url)].into_iter();
    let pairs = pairs.chain(headers.iter().map(|header| ("header", header.as_str())));
    let pairs: Vec<String> = pairs
        .map(|(name, value)| format!("{name}={}", encoded(value)))
        .collect();
    let query = pairs.join("&");
    let base = router.trim_end_matches('/');
    let base = if base.contains("://") {
        base.to_owned()
    } else {
        format!("http://{base}")
    };
    let asked = format!("{base}/v1/explain?{query}");
    let answer = http::get(&asked, Duration::from_secs(5)).await;
    let answer = answer.map_err(|why| {
        Exit::failed(format!(
            "the router does not answer: {why}\nits admin address is --router"
        ))
    })?;
    let explained: Value = serde_json::from_slice(&answer.body).map_err(|_| {
        let text = String::from_utf8_lossy(&answer.body);
        Exit::failed(format!(
            "{base} answered {}: {}",
            answer.status,
            text.trim()
        ))
    })?;
    if answer.status != 200 {
        let detail = explained["detail"].as_str().or(explained["error"].as_str());
        let text = detail.map_or_else(|| explained.to_string(), str::to_owned);
        return Err(Exit::failed(format!(
            "{base} answered {}: {text}",
            answer.status
        )));
    }
    print(json, &explained, ToString::to_string)
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

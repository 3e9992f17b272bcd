//! What operators look at and decide: routers, snapshots, history, tokens, health.

use reqwest::Method;
use serde::de::DeserializeOwned;

use super::{
    Client, ClientError, PageQuery,
    send::{Call, Repeat},
};
use crate::{
    Name,
    api::{
        AlarmAcknowledgement, ChangeRecord, HistoryDecision, NewToken, Page, RouterInfo,
        SnapshotInfo, Status, TokenInfo, TokenSecret,
    },
};

impl Client {
    /// `GET /v1/routers[?cluster=]`: the routers that the registry knows.
    pub async fn routers(&self, cluster: Option<&Name>) -> Result<Page<RouterInfo>, ClientError> {
        self.call(Call::get(&["v1", "routers"]).query("cluster", cluster))
            .await
    }

    /// `DELETE /v1/routers/{cluster}/{id}`: a router that stops says so, and is no longer waited for.
    pub async fn forget_router(&self, cluster: &Name, id: &str) -> Result<(), ClientError> {
        self.call_bytes(Call::new(
            Method::DELETE,
            &["v1", "routers", cluster.as_str(), id],
        ))
        .await
        .map(drop)
    }

    /// `GET /v1/snapshots`: the kept disk snapshots, newest first.
    pub async fn snapshots(&self) -> Result<Vec<SnapshotInfo>, ClientError> {
        self.call(Call::get(&["v1", "snapshots"])).await
    }

    /// `POST /v1/snapshots`: writes one now.
    pub async fn write_snapshot(&self) -> Result<SnapshotInfo, ClientError> {
        self.call(Call::new(Method::POST, &["v1", "snapshots"]))
            .await
    }

    /// `POST /v1/snapshots/verify`: reads every kept snapshot and says which are damaged.
    pub async fn verify_snapshots(&self) -> Result<Vec<SnapshotInfo>, ClientError> {
        self.call(Call::new(Method::POST, &["v1", "snapshots", "verify"]))
            .await
    }

    /// `GET /v1/changes?after=&limit=`: the change log after a revision.
    pub async fn changes(
        &self,
        after: u64,
        limit: Option<u32>,
    ) -> Result<Page<ChangeRecord>, ClientError> {
        let call = Call::get(&["v1", "changes"])
            .query("after", Some(after))
            .query("limit", limit);
        self.call(call).await
    }

    /// `GET /v1/status`.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.call(Call::get(&["v1", "status"])).await
    }

    /// `POST /v1/history`: says which history holds.
    pub async fn decide_history(&self, decision: HistoryDecision) -> Result<Status, ClientError> {
        self.call(Call::new(Method::POST, &["v1", "history"]).json(&decision))
            .await
    }

    /// `POST /v1/alarms/acknowledge`: an alarm of this replica ends, as somebody has taken note of it.
    pub async fn acknowledge_alarm(&self, code: &str) -> Result<Status, ClientError> {
        let acknowledgement = AlarmAcknowledgement {
            code: code.to_owned(),
        };
        let call = Call::new(Method::POST, &["v1", "alarms", "acknowledge"]);
        self.call(call.json(&acknowledgement)).await
    }

    /// `GET /v1/tokens`: one page.
    pub async fn tokens(&self, page: &PageQuery) -> Result<Page<TokenInfo>, ClientError> {
        let call = Call::get(&["v1", "tokens"])
            .query("limit", page.limit)
            .query("cursor", page.cursor.as_ref());
        self.call(call).await
    }

    /// `POST /v1/tokens`: makes a token; its secret is shown this once.
    pub async fn create_token(&self, token: &NewToken) -> Result<TokenSecret, ClientError> {
        let mut call = Call::new(Method::POST, &["v1", "tokens"]).json(token);
        // Said again, it would clash with itself.
        call.repeat = Repeat::Unsafe;
        self.call(call).await
    }

    /// `DELETE /v1/tokens/{name}`.
    pub async fn delete_token(&self, name: &Name) -> Result<(), ClientError> {
        self.call_bytes(Call::new(Method::DELETE, &["v1", "tokens", name.as_str()]))
            .await
            .map(drop)
    }

    /// `GET /v1/openapi.json`.
    pub async fn openapi(&self) -> Result<serde_json::Value, ClientError> {
        self.call(Call::get(&["v1", "openapi.json"])).await
    }

    /// `GET /healthz`: whether a registry lives.
    pub async fn health(&self) -> Result<(), ClientError> {
        self.call_bytes(Call::get(&["healthz"])).await.map(drop)
    }

    /// `GET /readyz`: whether a registry is ready.
    pub async fn ready(&self) -> Result<(), ClientError> {
        self.call_bytes(Call::get(&["readyz"])).await.map(drop)
    }

    /// Any `GET` of the API, for calls that this version does not know.
    pub async fn get_json<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&'static str, String)],
    ) -> Result<T, ClientError> {
        let mut call = Call::get(path);
        call.query.extend_from_slice(query);
        self.call(call).await
    }
}

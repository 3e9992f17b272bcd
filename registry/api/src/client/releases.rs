//! Releases: previewed, started, looked at, ordered about.

use reqwest::Method;

use super::{
    Client, ClientError,
    send::{Call, Repeat},
};
use crate::{
    Name, Release, ReleasePlan,
    api::{Page, Versioned},
    release::{Order, OrderRequest, ReleaseAnswer, ReleaseInfo},
};

impl Client {
    /// `GET /v1/releases`: those under way, and the latest that are over; the newest first.
    pub async fn releases(&self) -> Result<Page<Versioned<Release>>, ClientError> {
        self.call(Call::get(&["v1", "releases"])).await
    }

    /// `GET /v1/releases/{id}`.
    pub async fn release(&self, id: &Name) -> Result<ReleaseInfo, ClientError> {
        self.call(Call::get(&["v1", "releases", id.as_str()])).await
    }

    /// `POST /v1/releases`: starts one, or only says what it would do.
    pub async fn begin_release(
        &self,
        plan: &ReleasePlan,
        dry_run: bool,
    ) -> Result<ReleaseAnswer, ClientError> {
        let call = Call::new(Method::POST, &["v1", "releases"])
            .query("dry_run", dry_run.then_some(true))
            .json(plan);
        self.call(once(call)).await
    }

    /// `POST /v1/releases/{id}/{order}`.
    pub async fn order_release(
        &self,
        id: &Name,
        order: Order,
        reason: Option<&str>,
    ) -> Result<ReleaseAnswer, ClientError> {
        let word = match order {
            Order::Promote | Order::PromoteFull => "promote",
            Order::Pause => "pause",
            Order::Resume => "resume",
            Order::Abort => "abort",
            Order::Rollback => "rollback",
        };
        let said = OrderRequest {
            reason: reason.map(str::to_owned),
            full: order == Order::PromoteFull,
            while_away: false,
        };
        self.say_to_release(id, word, &said).await
    }

    /// `POST /v1/releases/{id}/rollback` with `while_away`: also while the database is away.
    pub async fn roll_back_while_away(
        &self,
        id: &Name,
        reason: &str,
    ) -> Result<ReleaseAnswer, ClientError> {
        let said = OrderRequest {
            reason: Some(reason.to_owned()),
            full: false,
            while_away: true,
        };
        self.say_to_release(id, "rollback", &said).await
    }

    async fn say_to_release(
        &self,
        id: &Name,
        word: &str,
        said: &OrderRequest,
    ) -> Result<ReleaseAnswer, ClientError> {
        let call = Call::new(Method::POST, &["v1", "releases", id.as_str(), word]).json(said);
        self.call(once(call)).await
    }
}

/// Said twice, it would be two steps, or clash with itself.
fn once(mut call: Call) -> Call {
    call.repeat = Repeat::Unsafe;
    call
}

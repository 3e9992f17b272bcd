//! `ctl fallback`: stored bodies.

use std::{
    io::{ErrorKind, Read, Write},
    path::Path,
};

use cardea_registry_api::{
    Fallback, Name,
    api::ApplyRequest,
    client::{ClientError, Precondition},
    fallback::{MAX_BODY, plain},
};

use super::{Session, instances, operate, plugins, rows};
use crate::{
    args::{DeletableKind, FallbackCommand},
    exit::{Exit, Outcome},
};

/// Does what was asked for.
pub(super) async fn run(session: &Session, command: FallbackCommand) -> Outcome {
    let failed = |e: ClientError| session.failure(&e);
    let client = &session.client;
    match command {
        FallbackCommand::Put {
            name,
            file,
            content_type,
            status,
            write,
        } => {
            let fallback = Fallback {
                name,
                content_type: content_type.unwrap_or_else(|| media_type(&file)),
                status,
                body: read(&file)?.into(),
            };
            if write.dry_run {
                let request = ApplyRequest {
                    fallbacks: vec![fallback],
                    ..ApplyRequest::default()
                };
                return plugins::would(session, request).await;
            }
            let seen = there(session, &fallback.name).await?;
            let written = client.put_fallback(&fallback, seen).await;
            session.print(&written.map_err(failed)?, |written| {
                let size = crate::table::size(fallback.body.as_bytes().len() as u64);
                format!(
                    "fallback {} is {size} of {}\n{}",
                    fallback.name,
                    fallback.content_type,
                    instances::at_revision(written)
                )
            })
        }
        FallbackCommand::Get { name } => {
            let found = client.fallback(&name).await.map_err(failed)?;
            if session.json {
                return session.print(&found, |_| String::new());
            }
            let mut out = std::io::stdout();
            let body = found.object.body.as_bytes();
            match out.write_all(body).and_then(|()| out.flush()) {
                Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Exit::failed(error)),
                _ => Ok(()),
            }
        }
        FallbackCommand::List => {
            let all = client.all_fallbacks().await.map_err(failed)?;
            session.print(&all, |all| rows::fallbacks(all))
        }
        FallbackCommand::Delete { name, write } => {
            operate::delete(session, DeletableKind::Fallback, name.as_str(), write).await
        }
    }
}

/// What holds of the one that is replaced, if there is one.
async fn there(session: &Session, name: &Name) -> Result<Precondition, Exit> {
    match session.client.fallback(name).await {
        Ok(found) => Ok(Precondition::Revision(found.revision)),
        Err(error) if error.is_not_found() => Ok(Precondition::None),
        Err(error) => Err(session.failure(&error)),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Exit> {
    let shown = path.display();
    // One byte more than there may be tells that there are too many.
    let most = MAX_BODY as u64 + 1;
    let mut bytes = Vec::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().take(most).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes))
    };
    read.map_err(|error| Exit::Config(format!("{shown}: {error}")))?;
    if bytes.len() > MAX_BODY {
        let text = format!("{shown}: a body has at most {MAX_BODY} bytes");
        return Err(Exit::Config(text));
    }
    Ok(bytes)
}

/// By the file's ending.
fn media_type(path: &Path) -> String {
    let ending = path.extension().and_then(|ending| ending.to_str());
    match ending.unwrap_or_default() {
        "html" | "htm" => "text/html; charset=utf-8",
        "json" => "application/json",
        "xml" => "application/xml",
        "css" => "text/css; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "txt" | "" => return plain(),
        _ => "application/octet-stream",
    }
    .to_owned()
}

//! `runsc wait`

use anyhow::{Context as _, Result, bail};
use sentry::control::protocol::WaitTarget;

use super::{Container, Context, Status, print};
use crate::cli::WaitArgs;

pub fn wait(context: &Context, args: &WaitArgs) -> Result<u8> {
    let container = Container::open(context, &args.id)?;
    if container.status() == Status::Stopped {
        bail!(
            "container {:?} has ended already; its exit status went to the process that started it",
            args.id
        );
    }
    let client = container.client()?;
    client.ask_wait(args.pid.map_or(WaitTarget::Init, WaitTarget::Process))?;
    let status = client.exited().context("cannot learn the exit status")?;
    print(&format!("{}\n", serde_json::json!({"id": args.id, "exitStatus": status.shell_code()})))?;
    Ok(0)
}

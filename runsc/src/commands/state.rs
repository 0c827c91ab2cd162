//! `runsc state`

use anyhow::Result;

use super::{Container, Context, print};
use crate::cli::IdArgs;

pub fn state(context: &Context, args: &IdArgs) -> Result<u8> {
    let container = Container::open(context, &args.id)?;
    print(&format!("{}\n", serde_json::to_string_pretty(&container.document())?))?;
    Ok(0)
}

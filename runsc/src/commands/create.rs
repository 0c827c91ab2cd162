//! `runsc create`

use anyhow::Result;

use super::Context;
use crate::cli::{CreateArgs, Global, OverlayFlag};
use crate::sandbox::{self, Console, Sandbox};
use crate::spec::{self, Bundle, Options, Overlay};

pub fn create(context: Context, args: &CreateArgs) -> Result<u8> {
    let bundle = spec::load(&args.bundle)?;
    let console = match &args.console_socket {
        Some(path) => Console::Socket(path.clone()),
        None => Console::Nobody,
    };
    from_bundle(context, args, &bundle, console, false)?;
    Ok(0)
}

/// What `create` and `run` have in common.
pub fn from_bundle(
    context: Context,
    args: &CreateArgs,
    bundle: &Bundle,
    console: Console,
    die_with_command: bool,
) -> Result<Sandbox> {
    crate::state::check_id(&args.id)?;
    let plan = spec::plan(bundle, options(&context.global))?;
    sandbox::create(sandbox::Request {
        global: &context.global,
        id: &args.id,
        bundle: &bundle.directory,
        config: &bundle.raw,
        oci_version: bundle.config.version(),
        plan,
        console,
        pid_file: args.pid_file.as_deref(),
        die_with_command,
        extra_fds: context.preserved,
    })
}

pub fn options(global: &Global) -> Options {
    Options {
        overlay: match global.overlay {
            OverlayFlag::Auto => Overlay::Auto,
            OverlayFlag::Root => Overlay::Memory,
            OverlayFlag::None => Overlay::None,
        },
    }
}

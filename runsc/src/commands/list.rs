//! `runsc list`

use anyhow::Result;
use serde_json::Value;

use super::{Container, Context, print, table};
use crate::cli::{ListArgs, TableOrJson};
use crate::state::Root;

pub fn list(context: &Context, args: &ListArgs) -> Result<u8> {
    let ids = Root::new(context.global.root.as_deref())?.ids()?;
    if args.quiet {
        let lines: String = ids.iter().map(|id| format!("{id}\n")).collect();
        print(&lines)?;
        return Ok(0);
    }
    let mut documents = Vec::new();
    for id in &ids {
        match Container::open(context, id) {
            Ok(container) => documents.push(container.document()),
            // It may have been deleted meanwhile.
            Err(error) => tracing::debug!("{id}: {error:#}"),
        }
    }
    match args.format {
        TableOrJson::Json if documents.is_empty() => print("null\n")?,
        TableOrJson::Json => print(&format!("{}\n", serde_json::to_string(&documents)?))?,
        TableOrJson::Table => {
            let columns = ["id", "pid", "status", "bundle", "created", "owner"];
            let mut rows = vec![columns.map(str::to_uppercase).to_vec()];
            rows.extend(
                documents
                    .iter()
                    .map(|document| columns.iter().map(|column| plain(&document[column])).collect()),
            );
            print(&table(&rows))?;
        }
    }
    Ok(0)
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

//! The page at `/`, in a browser.

use std::{env, process::Command};

use anyhow::{Context as _, Result, ensure};
use slm_tests::swarm::{Swarm, repository, run};

/// `make page` installs the browser and names the Python that drives it.
#[test]
#[ignore = "needs Chromium: make page"]
fn a_person_chats_with_the_quickstart() -> Result<()> {
    let variable = |name: &str| env::var_os(name).with_context(|| format!("{name} is not set; run `make page`"));
    let swarm = Swarm::start(&repository().join("examples/quickstart"))?;
    let mut command = Command::new(variable("SLM_PAGE_PYTHON")?);
    command.arg(repository().join("tests/clients/page.py")).arg(format!("{}/", swarm.http));
    command.arg(repository().join("examples/quickstart/expected.json")).arg(variable("SLM_CHROMIUM")?);
    // docs/page.png, when it is made anew.
    command.args(env::var_os("SLM_PAGE_SCREENSHOT").filter(|path| !path.is_empty()));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let ended = run(command)?;
    ensure!(ended.status.success(), "page.py, {}:\n{}", ended.status, ended.said);
    Ok(())
}

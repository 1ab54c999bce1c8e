//! A real sshd on the GPU machine, with keys and a configuration of its own, and an ssh on the laptop that uses nothing of this
//! machine's user.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use e2e::{home::binary, wait_for};

use super::net::{GPU, Pair, require};

const PORT: u16 = 2222;

/// The daemon.
pub struct Sshd {
    child: Child,
    log: PathBuf,
}

fn key(path: &Path) {
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path).output();
    assert!(made.as_ref().is_ok_and(|o| o.status.success()), "{made:?}");
}

impl Sshd {
    /// Starts it and lets the laptop in, whose `ssh gpu-box` reaches it.
    pub fn start(pair: &mut Pair) -> Self {
        require("/usr/sbin/sshd", "openssh-server");
        require("ssh", "openssh-client");
        // Where an unprivileged sshd child is put; Debian's service makes it.
        fs::create_dir_all("/run/sshd").expect("/run/sshd");
        let (there, here) = (pair.gpu.path().to_owned(), pair.laptop.path().to_owned());
        key(&there.join("host_key"));
        key(&here.join("user_key"));
        fs::copy(here.join("user_key.pub"), there.join("authorized_keys")).expect("the user's key");
        let programs = binary("autoresearch-worker");
        let programs = programs.parent().expect("a folder").display().to_string();
        let kept = std::env::var("XDG_CACHE_HOME")
            .or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cache")))
            .unwrap_or_default();
        let log = there.join("sshd.log");
        let config = format!(
            "Port {PORT}\nListenAddress {GPU}\nHostKey {home}/host_key\nPidFile none\nUsePAM no\nStrictModes no\n\
             PermitRootLogin prohibit-password\nAllowUsers root\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             AuthorizedKeysFile {home}/authorized_keys\nPrintMotd no\nLogLevel VERBOSE\n\
             SetEnv PATH={programs}:/usr/local/bin:/usr/bin:/bin HOME={home} XDG_CACHE_HOME={kept} AUTORESEARCH_WORKER_DATA_DIR={worker}\n",
            home = there.display(),
            worker = pair.worker_folder().display(),
        );
        fs::write(there.join("sshd_config"), config).expect("sshd's configuration");
        let hosts = fs::read_to_string(there.join("host_key.pub")).expect("the host's key");
        let mut words = hosts.split_whitespace();
        let (kind, host_key) = (words.next().expect("a kind"), words.next().expect("a key"));
        fs::write(here.join("known_hosts"), format!("[{GPU}]:{PORT} {kind} {host_key}\n"))
            .expect("known hosts");
        let client = format!(
            "Host gpu-box\n  HostName {GPU}\n  Port {PORT}\n  User root\n  IdentityFile {home}/user_key\n  IdentitiesOnly yes\n\
             Host *\n  UserKnownHostsFile {home}/known_hosts\n  GlobalKnownHostsFile none\n  IdentityFile {home}/user_key\n  IdentitiesOnly yes\n  IdentityAgent none\n",
            home = here.display(),
        );
        fs::write(here.join("ssh_config"), client).expect("ssh's configuration");
        fs::set_permissions(here.join("user_key"), fs::Permissions::from_mode(0o600)).expect("a private key");
        let program = format!("ssh -F {}", here.join("ssh_config").display());
        pair.laptop.environment.push(("AUTORESEARCH_SSH".to_owned(), program));
        let file = fs::File::create(&log).expect("sshd's log");
        let mut command = pair.there.command("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f"]).arg(there.join("sshd_config"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn().expect("sshd");
        let sshd = Self { child, log };
        wait_for("sshd", Duration::from_secs(30), || {
            let said = sshd.log();
            if said.contains("Server listening") { Ok(()) } else { Err(said) }
        });
        sshd
    }

    /// What it said.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Sshd {
    #[allow(clippy::print_stderr, reason = "whoever reads why a test failed wants the server's words")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- sshd's log ---\n{}", self.log());
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

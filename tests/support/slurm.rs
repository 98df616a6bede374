//! A Slurm cluster of one node on loopback: the real controller, node daemon and authentication,
//! with their own configuration in a temporary directory. Dropping it stops it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::git_repo::{isolate, run};
use super::optional::{find_program, skip};
use super::ports::free_port;
use super::processes;
use super::running::Running;
use super::wait::{PATIENCE, poll, wait_until};

/// A running cluster: a partition `build` with one node, which runs as many jobs at a time as it is
/// told to.
pub struct Slurm {
    // Dropped in this order: the other daemons need authentication to the end.
    node: Option<Running>,
    controller: Option<Running>,
    munge: Option<Running>,
    home: TempDir,
}

impl Slurm {
    /// Starts a cluster that runs one job at a time. `None` if Slurm is not installed or the test does
    /// not run as root: skip the calling test.
    #[track_caller]
    pub fn start() -> Option<Self> {
        Self::with_slots(1)
    }

    /// Starts a cluster that runs `slots` jobs at a time, however many processors there are.
    #[track_caller]
    pub fn with_slots(slots: usize) -> Option<Self> {
        for program in ["munged", "slurmctld", "slurmd", "srun", "squeue"] {
            if find_program(program).is_none() {
                skip(&format!("{program} (slurm-wlm and munge)"));
                return None;
            }
        }
        if !rustix::process::geteuid().is_root() {
            skip("root's rights, for slurmd");
            return None;
        }
        let home = TempDir::with_prefix("slurm-").expect("a temporary directory");
        let mut slurm = Self { node: None, controller: None, munge: None, home };
        for directory in ["state", "spool"] {
            fs::create_dir(slurm.path(directory)).expect("a directory");
        }
        let key = slurm.path("munge.key");
        fs::write(&key, [7; 64]).expect("munge's key");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("a mode");
        fs::write(slurm.conf(), slurm.configuration(slots)).expect("slurm.conf");

        let mut munge = slurm.command("munged");
        for (option, file) in [
            ("socket", "munge.socket"),
            ("key-file", "munge.key"),
            ("pid-file", "munge.pid"),
            ("seed-file", "munge.seed"),
        ] {
            munge.arg(format!("--{option}={}", slurm.path(file).display()));
        }
        // munged refuses a directory below one that anybody may write to, unless forced.
        slurm.munge = Some(Running::spawn(munge.args(["--foreground", "--force", "--num-threads=1"])));
        wait_until("munged is up", PATIENCE, || slurm.path("munge.socket").exists());
        slurm.controller = Some(Running::spawn(slurm.command("slurmctld").args(["-D", "-i"])));
        // Start the controller first: a node that finds none retries only after half a minute.
        wait_until("the controller answers", PATIENCE, || {
            slurm.command("scontrol").arg("ping").output().is_ok_and(|output| output.status.success())
        });
        slurm.node = Some(Running::spawn(slurm.command("slurmd").arg("-D")));
        wait_until("the node is idle", PATIENCE, || {
            let output = slurm.command("sinfo").args(["--noheader", "--format=%T"]).output();
            output.is_ok_and(|output| output.stdout == b"idle\n")
        });
        Some(slurm)
    }

    /// Prepares `program` to use this cluster.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        isolate(&mut command);
        self.environment(&mut command);
        command
    }

    /// Sets the variables by which `command` uses this cluster.
    pub fn environment(&self, command: &mut Command) {
        command.env("SLURM_CONF", self.conf());
    }

    /// The waiting and running jobs: lines of `name state`.
    pub fn jobs(&self) -> String {
        run(self.command("squeue").args(["--noheader", "--format=%j %T"]))
    }

    /// The jobs that have ended, as lines of `Name=… JobState=…` and more.
    pub fn ended(&self) -> String {
        fs::read_to_string(self.path("jobs")).unwrap_or_default()
    }

    /// Waits until a job called `name` has ended in `state`.
    #[track_caller]
    pub fn wait_ended(&self, name: &str, state: &str) {
        let is_it = |line: &str| {
            let mut words = line.split(' ');
            words.any(|word| word == format!("Name={name}"))
                && words.any(|word| word == format!("JobState={state}"))
        };
        let met = poll(PATIENCE, || self.ended().lines().any(is_it).then_some(()));
        assert!(met.is_some(), "no {name} has ended in {state}: {}", self.ended());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn conf(&self) -> PathBuf {
        self.path("slurm.conf")
    }

    fn configuration(&self, slots: usize) -> String {
        let name = fs::read_to_string("/proc/sys/kernel/hostname").expect("the machine's name");
        // Slurm uses only the first part of a machine's name.
        let host = name.trim().split('.').next().unwrap_or_default();
        let ports = [(); 2].map(|()| free_port());
        let home = self.home.path().display();
        // By default, a job that waits for a slot waits three seconds longer than the slot is in use.
        format!(
            "ClusterName=test\nSlurmctldHost={host}(127.0.0.1)\nSlurmctldPort={}\nSlurmdPort={}\n\
             SlurmUser=root\nSlurmdUser=root\nCommunicationParameters=NoInAddrAny,NoCtldInAddrAny\n\
             AuthType=auth/munge\nAuthInfo=socket={home}/munge.socket\nCredType=cred/munge\n\
             StateSaveLocation={home}/state\nSlurmdSpoolDir={home}/spool\n\
             SlurmctldPidFile={home}/slurmctld.pid\nSlurmdPidFile={home}/slurmd.pid\n\
             JobCompType=jobcomp/filetxt\nJobCompLoc={home}/jobs\n\
             ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nMpiDefault=none\n\
             SelectType=select/cons_tres\nSelectTypeParameters=CR_Core\n\
             AccountingStorageType=accounting_storage/none\nJobAcctGatherType=jobacct_gather/none\n\
             SchedulerParameters=batch_sched_delay=0\nSlurmdParameters=config_overrides\n\
             NodeName={host} NodeAddr=127.0.0.1 CPUs={slots}\n\
             PartitionName=build Nodes={host} Default=YES\n",
            ports[0], ports[1]
        )
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        // End the jobs first, while the controller runs; then the daemons; then processes that have
        // left their groups.
        let _ = self.command("scancel").args(["--quiet", "--user=root"]).output();
        poll(PATIENCE, || {
            let jobs = self.command("squeue").arg("--noheader").output();
            jobs.is_ok_and(|jobs| jobs.stdout.is_empty()).then_some(())
        });
        for daemon in [self.node.take(), self.controller.take(), self.munge.take()].into_iter().flatten() {
            daemon.kill(true);
        }
        let mark = format!("SLURM_CONF={}", self.conf().display());
        poll(PATIENCE, || {
            let left = processes::with_environment(&mark);
            for process in &left {
                processes::kill_group(process.group);
            }
            left.is_empty().then_some(())
        });
    }
}

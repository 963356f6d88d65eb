//! A mounted Secret, followed.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    time::{Duration, Instant},
};

use slm_tls::{Identity, Pem, follow};

use crate::harness::{authority, knock, pem, serve};

fn write(folder: &Path, pem: &Pem) {
    for (name, bytes) in [("ca.crt", &pem.authorities), ("tls.crt", &pem.certificate), ("tls.key", &pem.key)] {
        fs::write(folder.join(name), bytes).unwrap();
    }
}

/// As the kubelet does it: a new folder, a link to it in the place of the former, the former removed.
fn mount(folder: &Path, version: u32, pem: &Pem) {
    let data = folder.join(format!("..{version}"));
    fs::create_dir(&data).unwrap();
    write(&data, pem);
    let former = fs::canonicalize(folder.join("..data"));
    symlink(&data, folder.join("..data_tmp")).unwrap();
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    match former {
        Ok(former) => fs::remove_dir_all(former).unwrap(),
        Err(_) => {
            for name in ["ca.crt", "tls.crt", "tls.key"] {
                symlink(Path::new("..data").join(name), folder.join(name)).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_new_version_of_the_secret_is_taken_without_a_new_listener() {
    let folder = tempfile::tempdir().unwrap();
    let swarm = authority();
    mount(folder.path(), 0, &pem(&swarm, &[&swarm], Identity::Worker));
    let tls = follow(folder.path(), Identity::Worker).unwrap();
    let served = serve(&tls).await;
    let router = pem(&swarm, &[&swarm], Identity::Router);
    let mut last = knock(served.address, &swarm, Some(&router)).await.unwrap();
    for version in 1..4 {
        let began = Instant::now();
        mount(folder.path(), version, &pem(&swarm, &[&swarm], Identity::Worker));
        let next = loop {
            let now = knock(served.address, &swarm, Some(&router)).await.unwrap();
            if now != last {
                break now;
            }
            assert!(began.elapsed() < Duration::from_secs(30), "never taken");
        };
        // By being told, not by the slow look.
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        last = next;
    }
}

#[tokio::test]
async fn what_cannot_be_used_leaves_the_former_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let swarm = authority();
    let whole = pem(&swarm, &[&swarm], Identity::Worker);
    write(folder.path(), &whole);
    let tls = follow(folder.path(), Identity::Worker).unwrap();
    let served = serve(&tls).await;
    let router = pem(&swarm, &[&swarm], Identity::Router);
    let former = knock(served.address, &swarm, Some(&router)).await.unwrap();
    // Half of a replacement: the key is another one.
    let next = pem(&swarm, &[&swarm], Identity::Worker);
    fs::write(folder.path().join("tls.key"), &next.key).unwrap();
    assert_eq!(knock(served.address, &swarm, Some(&router)).await.unwrap(), former);
    write(folder.path(), &next);
    let began = Instant::now();
    while knock(served.address, &swarm, Some(&router)).await.unwrap() == former {
        assert!(began.elapsed() < Duration::from_secs(30), "never taken");
    }
}

#[tokio::test]
async fn a_folder_without_them_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let refused = follow(folder.path(), Identity::Worker).unwrap_err().to_string();
    assert!(refused.contains("ca.crt: ") && refused.contains("a folder with ca.crt"), "{refused}");
}

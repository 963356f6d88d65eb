package node

import (
	"fmt"
	"os"
	"path/filepath"

	"slm-swarm/tests/cluster/internal/images"
	"slm-swarm/tests/cluster/internal/layout"
	"slm-swarm/tests/cluster/internal/pki"
)

// writeConfigs writes what the node's programs read.
func writeConfigs(c layout.Cluster, i int) error {
	for name, text := range map[string]string{
		"containerd.toml":        containerdConfig(c, i),
		"cni.d/10-pods.conflist": podNetwork(c, i),
		"kubelet.yaml":           kubeletConfig(c, i),
	} {
		path := c.Path(layout.NodeName(i), name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// containerdConfig: a sandbox that may not lower its oom score is what a machine without that right needs. The pause
// image is the harness's own; there is nothing to pull from.
func containerdConfig(c layout.Cluster, i int) string {
	return fmt.Sprintf(`version = 2
root = "%s"
state = "/run/containerd"

[grpc]
  address = "/run/containerd/containerd.sock"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "%s"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "%s"
`, c.Path(layout.NodeName(i), "containerd"), images.Ref(c, "pause"), c.Path(layout.NodeName(i), "cni.d"))
}

// podNetwork is a cable from each pod to its node, without a bridge: a bridge hides the answer of a pod on the same
// node from kube-proxy's translation on kernels that lack br_netfilter. Pods keep their addresses on the way to other
// nodes.
func podNetwork(c layout.Cluster, i int) string {
	return fmt.Sprintf(`{
  "cniVersion": "0.4.0",
  "name": "pods",
  "plugins": [
    {
      "type": "ptp", "ipMasq": false,
      "ipam": {"type": "host-local", "ranges": [[{"subnet": "%s"}]], "routes": [{"dst": "0.0.0.0/0"}]}
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
`, c.PodCIDR(i))
}

// kubeletConfig: only what differs from the defaults. Images are never collected, for they could not be pulled again,
// and a disk that is nearly full is no reason to evict: it is the machine's, not the node's. Changed Secrets reach pods
// within syncFrequency, not within a minute: tests renew certificates.
func kubeletConfig(c layout.Cluster, i int) string {
	serving := pki.File(c, layout.NodeName(i)+"-serving")
	return fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: "%s"}
authorization: {mode: Webhook}
tlsCertFile: "%s.crt"
tlsPrivateKeyFile: "%s.key"
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: "%s"
failCgroupV1: false
failSwapOn: false
clusterDomain: cluster.local
clusterDNS: ["%s"]
resolvConf: /dev/null
volumePluginDir: /var/lib/kubelet/volume-plugins
makeIPTablesUtilChains: false
serializeImagePulls: false
syncFrequency: 10s
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard:
  memory.available: 100Mi
  nodefs.available: 1%%
  nodefs.inodesFree: 1%%
  imagefs.available: 1%%
  imagefs.inodesFree: 1%%
`, pki.File(c, "ca.crt"), serving, serving, c.NodeCgroup(i), c.DNSIP())
}

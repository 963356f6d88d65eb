// Package control runs the control plane: etcd, the API server, the controllers and the scheduler, in a network
// namespace of their own that is no node's.
package control

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"slm-swarm/tests/cluster/internal/layout"
	"slm-swarm/tests/cluster/internal/pki"
	"slm-swarm/tests/cluster/internal/process"
	"slm-swarm/tests/cluster/internal/shell"
)

// readyLimit is how long the API server may take; it needs 4 s on two idle cores.
const readyLimit = 2 * time.Minute

// Processes are the control plane's, in the order of their start.
var Processes = []string{"etcd", "apiserver", "controller-manager", "scheduler"}

// Start starts one of them.
func Start(c layout.Cluster, name string) error {
	args := map[string]func(layout.Cluster) []string{
		"etcd": etcd, "apiserver": apiserver, "controller-manager": controllers, "scheduler": scheduler,
	}[name]
	return process.Start(c, process.Spec{Name: name, Node: -1, Args: append([]string{c.Program("kube")}, args(c)...)})
}

// Up starts all of them, the API server's clients last: they end when they do not find it.
func Up(ctx context.Context, c layout.Cluster) error {
	for _, name := range Processes {
		if err := Start(c, name); err != nil {
			return err
		}
		if name == "apiserver" {
			if err := Ready(ctx, c); err != nil {
				return err
			}
		}
	}
	return nil
}

func etcd(c layout.Cluster) []string {
	const client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
	return []string{
		"etcd",
		"--data-dir=" + c.Path("etcd"),
		"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=default=" + peer,
		"--log-level=warn",
		// A cluster for tests does not outlive a power cut.
		"--unsafe-no-fsync",
	}
}

func apiserver(c layout.Cluster) []string {
	file := func(name string) string { return pki.File(c, name) }
	return []string{
		"kube-apiserver",
		"--etcd-servers=http://127.0.0.1:2379",
		"--advertise-address=" + c.ControlIP(),
		"--secure-port=6443",
		"--tls-cert-file=" + file("apiserver.crt"), "--tls-private-key-file=" + file("apiserver.key"),
		"--client-ca-file=" + file("ca.crt"),
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
		"--service-cluster-ip-range=" + c.ServiceCIDR(),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + file("service-accounts.pub"),
		"--service-account-signing-key-file=" + file("service-accounts.key"),
		"--kubelet-certificate-authority=" + file("ca.crt"),
		"--kubelet-client-certificate=" + file("apiserver-kubelet.crt"),
		"--kubelet-client-key=" + file("apiserver-kubelet.key"),
		"--kubelet-preferred-address-types=InternalIP",
		"--requestheader-client-ca-file=" + file("front-proxy-ca.crt"),
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-username-headers=X-Remote-User",
		"--proxy-client-cert-file=" + file("front-proxy-client.crt"),
		"--proxy-client-key-file=" + file("front-proxy-client.key"),
	}
}

func controllers(c layout.Cluster) []string {
	config := pki.Kubeconfig(c, "controller")
	return []string{
		"kube-controller-manager",
		"--kubeconfig=" + config, "--authentication-kubeconfig=" + config, "--authorization-kubeconfig=" + config,
		"--root-ca-file=" + pki.File(c, "ca.crt"),
		"--cluster-signing-cert-file=" + pki.File(c, "ca.crt"), "--cluster-signing-key-file=" + pki.File(c, "ca.key"),
		"--service-account-private-key-file=" + pki.File(c, "service-accounts.key"),
		"--use-service-account-credentials=true",
		"--leader-elect=false",
	}
}

func scheduler(c layout.Cluster) []string {
	config := pki.Kubeconfig(c, "scheduler")
	return []string{
		"kube-scheduler",
		"--kubeconfig=" + config, "--authentication-kubeconfig=" + config, "--authorization-kubeconfig=" + config,
		"--leader-elect=false",
	}
}

// Ready waits until the API server says that it is, to a client that checks its certificate.
func Ready(ctx context.Context, c layout.Cluster) error {
	client, err := adminClient(c)
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	return shell.Wait(ctx, "API server ready", readyLimit, func(ctx context.Context) error {
		if !process.Alive(c, "apiserver") {
			return shell.Never(fmt.Errorf("it ended; its last words: %s", process.Tail(c, "apiserver", 3)))
		}
		return get(ctx, client, c.APIServer()+"/readyz")
	})
}

// Answers says at once whether the API server is ready.
func Answers(ctx context.Context, c layout.Cluster) error {
	client, err := adminClient(c)
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	return get(ctx, client, c.APIServer()+"/readyz")
}

func get(ctx context.Context, client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(response.Body, 4096))
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", url, response.Status, strings.TrimSpace(string(said)))
	}
	return nil
}

func adminClient(c layout.Cluster) (*http.Client, error) {
	ca, err := os.ReadFile(pki.File(c, "ca.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	pair, err := tls.LoadX509KeyPair(pki.File(c, "admin.crt"), pki.File(c, "admin.key"))
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}}
	return &http.Client{Transport: transport, Timeout: 5 * time.Second}, nil
}

// Package addons runs what a cluster has besides Kubernetes itself: names for Services, and a registry.
package addons

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"net/http"
	"os"
	"strings"
	"text/template"
	"time"

	"slm-swarm/tests/cluster/internal/images"
	"slm-swarm/tests/cluster/internal/layout"
	"slm-swarm/tests/cluster/internal/process"
	"slm-swarm/tests/cluster/internal/shell"
)

//go:embed addons.yaml
var manifest string

// Limits of the waits.
const (
	dnsLimit      = 2 * time.Minute
	registryLimit = 30 * time.Second
)

// Apply creates the DNS server's Deployment and the registry's Service.
func Apply(ctx context.Context, c layout.Cluster) error {
	text, err := render(c)
	if err != nil {
		return err
	}
	_, err = Kubectl(ctx, c, text, "apply", "--server-side", "--force-conflicts", "-f", "-")
	return err
}

func render(c layout.Cluster) (string, error) {
	parsed, err := template.New("addons").Option("missingkey=error").Parse(manifest)
	if err != nil {
		return "", err
	}
	var text bytes.Buffer
	err = parsed.Execute(&text, map[string]any{
		"DNSImage": images.Ref(c, "coredns"), "DNSIP": c.DNSIP(), "DNSReplicas": min(2, c.Nodes), "RegistryIP": c.ControlIP(),
	})
	return text.String(), err
}

// DNSReady waits until the DNS server is available on all its nodes.
func DNSReady(ctx context.Context, c layout.Cluster) error {
	_, err := Kubectl(ctx, c, "", "-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout="+dnsLimit.String())
	return err
}

// Kubectl runs kubectl as the admin.
func Kubectl(ctx context.Context, c layout.Cluster, input string, args ...string) (string, error) {
	command := []string{c.Program("kube"), "kubectl", "--kubeconfig", c.Kubeconfig()}
	return shell.Output(ctx, strings.NewReader(input), append(command, args...)...)
}

// StartRegistry starts the registry over the folder registry/ of the cluster and waits until it answers.
func StartRegistry(ctx context.Context, c layout.Cluster) error {
	config := fmt.Sprintf(`version: 0.1
log: {level: warn, accesslog: {disabled: false}}
storage:
  filesystem: {rootdirectory: "%s"}
  delete: {enabled: true}
http: {addr: "%s"}
`, c.Path("registry"), c.Registry())
	path := c.Path("registry.yaml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return err
	}
	err := process.Start(c, process.Spec{
		Name: "registry", Node: -1, Args: []string{c.Program("registry"), "serve", path},
		// It looks for an exporter of traces otherwise, on every start.
		Env: []string{"OTEL_TRACES_EXPORTER=none"},
	})
	if err != nil {
		return err
	}
	return shell.Wait(ctx, "registry answers", registryLimit, func(ctx context.Context) error { return RegistryAnswers(ctx, c) })
}

// RegistryAnswers says at once whether the registry serves.
func RegistryAnswers(ctx context.Context, c layout.Cluster) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.Registry()+"/v2/", nil)
	if err != nil {
		return err
	}
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("registry %s: %s", c.Registry(), response.Status)
	}
	return nil
}

package addons

import (
	"context"
	"fmt"
	"strings"
	"time"

	"slm-swarm/tests/cluster/internal/layout"
	"slm-swarm/tests/cluster/internal/shell"
)

// NodesReady waits until every node says that it is.
func NodesReady(ctx context.Context, c layout.Cluster, limit time.Duration) error {
	for i := range c.Nodes {
		if err := NodeReady(ctx, c, i, time.Time{}, limit); err != nil {
			return err
		}
	}
	return nil
}

// NodeReady waits until a node said, since a point in time, that it is ready: of a node that is lost the API server
// tells what it said last.
func NodeReady(ctx context.Context, c layout.Cluster, i int, since time.Time, limit time.Duration) error {
	name := layout.NodeName(i)
	const said = `{.status.conditions[?(@.type=="Ready")].status} {.status.conditions[?(@.type=="Ready")].lastHeartbeatTime} {.status.conditions[?(@.type=="Ready")].message}`
	return shell.Wait(ctx, name+" Ready", limit, func(ctx context.Context) error {
		text, err := Kubectl(ctx, c, "", "get", "node", name, "-o", "jsonpath="+said)
		if err != nil {
			return err
		}
		return ready(text, since)
	})
}

// ready reads "STATUS TIME MESSAGE". The API server keeps whole seconds.
func ready(said string, since time.Time) error {
	status, rest, _ := strings.Cut(said, " ")
	heard, message, _ := strings.Cut(rest, " ")
	when, err := time.Parse(time.RFC3339, heard)
	if err != nil {
		return fmt.Errorf("it said nothing yet: %q", said)
	}
	if when.Before(since.Truncate(time.Second)) {
		return fmt.Errorf("it said nothing since %s", since.Format(time.TimeOnly))
	}
	if status != "True" {
		return fmt.Errorf("it is not: %s", message)
	}
	return nil
}

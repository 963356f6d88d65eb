package process

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"slm-swarm/tests/cluster/internal/layout"
)

func TestStatStart(t *testing.T) {
	const rest = " 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20 21"
	for _, good := range []string{"7 (sleep) S" + rest, "7 (a) b (c)) R" + rest} {
		if got, err := statStart(good); err != nil || got != "4242" {
			t.Errorf("%q: %q, %v", good, got, err)
		}
	}
	for _, bad := range []string{"", "7 (sleep)", "7 sleep S" + rest[:20], "7 (sleep) Z" + rest} {
		if got, err := statStart(bad); err == nil {
			t.Errorf("%q: %q, want an error", bad, got)
		}
	}
}

func TestEnvironHas(t *testing.T) {
	environ := []byte("A=1\x00SLM_CLUSTER_PROCESS=/x/e2e\x00")
	if !environHas(environ, []string{"SLM_CLUSTER_PROCESS=/x/e2e"}) {
		t.Error("the mark was not seen")
	}
	for _, other := range [][]string{{"SLM_CLUSTER_PROCESS=/x/e2"}, {"SLM_CLUSTER_PROCESS=/x/e2e", "B=1"}} {
		if environHas(environ, other) {
			t.Errorf("%v was seen", other)
		}
	}
	if environHas(nil, nil) {
		t.Error("a process without an environment is nobody's")
	}
}

// A real child, found by its file and by its mark; a file whose start time is another process's finds nothing.
func TestStopAndSweep(t *testing.T) {
	c := layout.Cluster{Name: "unit", Root: t.TempDir()}
	if err := os.MkdirAll(c.Path("pids"), 0o700); err != nil {
		t.Fatal(err)
	}
	start := func() *exec.Cmd {
		cmd := exec.Command("sleep", "1000")
		cmd.Env = []string{c.Mark()}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	first := start()
	if err := remember(c, "one", first.Process.Pid); err != nil {
		t.Fatal(err)
	}
	reused := fmt.Sprintf("%d 1@another-boot\n", first.Process.Pid)
	if err := os.WriteFile(pidFile(c, "reused"), []byte(reused), 0o600); err != nil {
		t.Fatal(err)
	}
	if Alive(c, "reused") || !Alive(c, "one") {
		t.Fatal("the start time decides which process is meant")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := Stop(ctx, c, "reused"); err != nil || !Alive(c, "one") {
		t.Fatalf("stopping a pid that was given away again: %v", err)
	}
	if err := Stop(ctx, c, "one"); err != nil || Alive(c, "one") {
		t.Fatalf("stop: %v", err)
	}
	_ = first.Wait()

	second := start()
	none := func() ([]int, error) { return nil, nil }
	done := make(chan error, 1)
	go func() { done <- second.Wait() }()
	if err := Sweep(ctx, []string{c.Mark()}, none); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil {
		t.Error("the marked process was not killed")
	}
}

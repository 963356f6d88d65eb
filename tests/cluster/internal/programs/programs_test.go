package programs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFingerprint(t *testing.T) {
	source := t.TempDir()
	dir := filepath.Join(source, "programs", "x")
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	print := func() string {
		t.Helper()
		text, err := program{name: "x", module: "x"}.fingerprint(source)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	if _, err := (program{name: "x", module: "x"}).fingerprint(source); err == nil {
		t.Error("a module that is not there has a fingerprint")
	}
	write("main.go", "package main")
	write("go.sum", "a")
	first := print()
	if print() != first {
		t.Error("the same files, another fingerprint")
	}
	write("go.sum", "b")
	if print() == first {
		t.Error("another go.sum, the same fingerprint")
	}
	one, _ := program{name: "y", install: "y@v1"}.fingerprint(source)
	two, _ := program{name: "y", install: "y@v2"}.fingerprint(source)
	if one == two {
		t.Error("another version, the same fingerprint")
	}
}

// What go.mod pins is what the components tell.
func TestKubernetesVersion(t *testing.T) {
	text, err := os.ReadFile("../../programs/kube/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if want := "k8s.io/kubernetes " + Kubernetes + "\n"; !strings.Contains(string(text), want) {
		t.Errorf("programs/kube/go.mod does not require %s", want)
	}
}

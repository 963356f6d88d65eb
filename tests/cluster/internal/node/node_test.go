package node

import (
	"slices"
	"testing"
)

func TestBelow(t *testing.T) {
	const info = `22 1 254:0 / / rw - ext4 /dev/vda rw
30 22 254:0 /x /srv/e2e/ns rw - ext4 /dev/vda rw
31 30 0:4 mnt:[4026532] /srv/e2e/ns/node0 rw - nsfs nsfs rw
32 22 0:4 /y /srv/e2e2 rw - ext4 /dev/vda rw
33 22 0:4 /z /srv/with\040space rw - ext4 /dev/vda rw
`
	for dir, want := range map[string][]string{
		"/srv/e2e":        {"/srv/e2e/ns", "/srv/e2e/ns/node0"},
		"/srv/e2e/ns":     {"/srv/e2e/ns", "/srv/e2e/ns/node0"},
		"/srv/with space": {"/srv/with space"},
		"/srv/e":          nil,
	} {
		if got := below(info, dir); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", dir, got, want)
		}
	}
}

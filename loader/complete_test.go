package loader

import (
	"os"
	"testing"
	"time"
)

func TestTheTimeOfTheLastCompleteSyncIsKeptWithThePins(t *testing.T) {
	dir := newBPFFS(t)
	want := func(when string, want time.Time) {
		t.Helper()
		if got, err := LastComplete(dir); err != nil || !got.Equal(want) {
			t.Errorf("%s: %v, %v; want %v", when, got, err, want)
		}
	}
	want("without pins", time.Time{})
	openOrCreate(t, dir, smallSizes())
	want("never synced", time.Time{})
	at := time.Unix(1_700_000_000, 5)
	must(t, "mark", MarkComplete(dir, at))
	want("synced", at)
	openOrCreate(t, dir, smallSizes())
	want("opened by the next agent", at)
	must(t, "links beside it", os.MkdirAll(LinksDir(dir), dirMode))
	want("after an attachment", at)
	must(t, "remove", RemovePins(dir))
	want("cleaned up", time.Time{})
	if err := MarkComplete(dir, at); err == nil {
		t.Error("marked what is not there")
	}
}

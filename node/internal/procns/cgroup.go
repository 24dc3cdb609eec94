// Package procns finds the network namespaces of pods by their processes, as /proc of a node shows them.
package procns

import "strings"

// UIDs are those of the pods that a process is in, by the text of its cgroup file, the outermost first. There is more than one
// where a pod runs containers of its own, and says about these whatever it likes.
//
// Drivers and runtimes write a pod as pod<uid>, or as a slice, kubepods-besteffort-pod<uid>.slice, with "_" in place of
// "-"; a runtime whose driver is not kubelet's adds to the slice, as in …-pod<uid>.slice:cri-containerd:<id>. Version 1 has one
// line for each controller and version 2 has one line in all; a hybrid node has both.
func UIDs(cgroup string) []string {
	var all []string
	for line := range strings.Lines(cgroup) {
		_, rest, _ := strings.Cut(line, ":") // number:controllers:path
		_, path, ok := strings.Cut(strings.TrimSuffix(rest, "\n"), ":")
		if !ok {
			continue
		}
		var here []string
		for segment := range strings.SplitSeq(path, "/") {
			if uid := podOf(segment); uid != "" {
				here = append(here, uid)
			}
		}
		switch { // controllers that kubelet does not use say nothing or less
		case len(here) == 0:
		case len(all) == 0 || len(here) > len(all) && here[0] == all[0]:
			all = here
		case here[0] != all[0]:
			return nil // two pods at once: whatever it is, it is not ours to believe
		}
	}
	return all
}

func podOf(segment string) string {
	if slice, _, ok := strings.Cut(segment, ".slice"); ok {
		i := strings.LastIndex(slice, "-pod")
		if i < 0 {
			return ""
		}
		return uid(strings.ReplaceAll(slice[i+len("-pod"):], "_", "-"))
	}
	name, ok := strings.CutPrefix(segment, "pod")
	if !ok {
		return ""
	}
	return uid(name)
}

// uid is a word that can be a pod's UID, or the hash by which kubelet knows a pod of a file; else "".
func uid(word string) string {
	if len(word) != 36 && len(word) != 32 || strings.Trim(word, "0123456789abcdef-") != "" {
		return ""
	}
	return word
}

{{/* These helpers are the same in every chart; a test compares them. */}}

{{/*
ambit.values are the values in force, as YAML: the chart's defaults, under the profile, under the platform's, under what the user set at
the top, under what the user set in the chart's own section (such as pilot). Give root, a dict with the chart's section and the context.
*/}}
{{- define "ambit.values" -}}
{{- $ctx := .root -}}
{{- $section := .section -}}
{{- $user := deepCopy $ctx.Values -}}
{{- $own := deepCopy (index $user $section | default dict) -}}
{{- $user = mergeOverwrite (omit $user $section) $own -}}
{{- $out := $ctx.Files.Get "files/defaults.yaml" | fromYaml -}}
{{- $profile := coalesce $user.profile ($user.global | default dict).profile "" -}}
{{- $platform := coalesce $user.platform ($user.global | default dict).platform "" -}}
{{- range $kind, $name := dict "profile" $profile "platform" $platform -}}
{{- if $name -}}
{{- $text := $ctx.Files.Get (printf "files/%s-%s.yaml" $kind $name) -}}
{{- if not $text -}}
{{- fail (printf "there is no %s %q" $kind $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $file := list (printf "files/profile-%s.yaml" $profile) (printf "files/platform-%s.yaml" $platform) -}}
{{- $tree := $ctx.Files.Get $file | fromYaml -}}
{{- $part := deepCopy (index $tree $section | default dict) -}}
{{- $out = mergeOverwrite $out (omit $tree "pilot" "cni" "ztunnel" "gateways") $part -}}
{{- end -}}
{{- $out = mergeOverwrite $out $user -}}
{{- include "ambit.check" $out -}}
{{- toYaml $out -}}
{{- end -}}

{{/* ambit.check refuses settings of Istio's that would have no effect here. Give the values in force. */}}
{{- define "ambit.check" -}}
{{- range $name := list .revision .defaultRevision -}}
{{- if not (has ($name | default "default") (list "default")) -}}
{{- fail (printf "revision %q: one control plane runs in a cluster, so there are no revisions to tell apart; leave it out, and upgrade in place: pods keep their traffic without a control plane" $name) -}}
{{- end -}}
{{- end -}}
{{- range $name := list .variant .global.variant -}}
{{- if not (has ($name | default "distroless") (list "distroless")) -}}
{{- fail (printf "variant %q: there is one image of each component, with nothing in it but the program; leave variant out" $name) -}}
{{- end -}}
{{- end -}}
{{- if not (dig "nativeNftables" true .global) -}}
{{- fail "global.nativeNftables=false: the node agent writes nftables rules, and knows no others; leave it out" -}}
{{- end -}}
{{- with coalesce .network .global.network -}}
{{- fail (printf "network %q: the mesh is one network, in which pods reach each other; leave network out" .) -}}
{{- end -}}
{{- end -}}

{{/* ambit.image of a component: a name with a slash is taken as a whole. Give hub, tag, variant, image. */}}
{{- define "ambit.image" -}}
{{- if contains "/" .image -}}
{{ .image }}
{{- else -}}
{{ .hub }}/{{ .image }}:{{ .tag }}
{{- end -}}
{{- end -}}

{{/* ambit.labels are on every object. Give root, and name: of the part. */}}
{{- define "ambit.labels" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: ambit
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{/* ambit.env writes a map of environment variables as a list. */}}
{{- define "ambit.env" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- end -}}

{{/* ambit.level is a level of logs from what Istio writes, such as default:info,ads:debug. */}}
{{- define "ambit.level" -}}
{{- $level := "info" -}}
{{- range $part := splitList "," (. | toString) -}}
{{- $words := splitList ":" $part -}}
{{- if eq (len $words) 1 -}}
{{- $level = first $words -}}
{{- else if has (first $words) (list "default" "all") -}}
{{- $level = last $words -}}
{{- end -}}
{{- end -}}
{{ $level }}
{{- end -}}

{{/* istiod.values are the values in force, with what follows from them. */}}
{{- define "istiod.values" -}}
{{- $v := include "ambit.values" (dict "root" . "section" "pilot") | fromYaml -}}
{{- $suffix := ternary (printf "-%s" $v.revision) "" (and (ne $v.revision "") (ne $v.revision "default")) -}}
{{- $tag := coalesce $v.tag $v.global.tag .Chart.AppVersion -}}
{{- $image := include "ambit.image" (dict "hub" (coalesce $v.hub $v.global.hub) "tag" $tag "image" $v.image) -}}
{{- $labels := dict "app" "istiod" "istio" (ternary "pilot" "istiod" (eq $suffix "")) "istio.io/rev" ($v.revision | default "default") -}}
{{- merge (dict "x" (dict "name" (printf "istiod%s" $suffix) "suffix" $suffix "image" $image "labels" $labels)) $v | toYaml -}}
{{- end -}}

{{- define "istiod.labels" -}}
{{ include "ambit.labels" (dict "root" . "name" "istiod") }}
operator.istio.io/component: Pilot
{{- end -}}

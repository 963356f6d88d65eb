{{/* What pods may reach. */}}

{{- define "slm-swarm.egressBase" -}}
- ports:
    {{- range .dnsPorts }}
    - {port: {{ . }}, protocol: UDP}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end }}

{{/* Of those that follow the API server and speak to workers. */}}
{{- define "slm-swarm.egressControl" -}}
{{ include "slm-swarm.egressBase" .policy }}
- ports:
    {{- range .policy.apiServerPorts }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
- to:
    - podSelector:
        matchLabels:
          {{- .worker | nindent 10 }}
  ports:
    - {port: 9090, protocol: TCP}
{{- end }}
